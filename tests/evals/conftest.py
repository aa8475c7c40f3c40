"""Synthetic benchmarks, a real tokenizer, stores of both kinds, and a plan that runs against a scripted model."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from pinnace.agent import (
    Agent,
    AnswerRule,
    Budget,
    Endpoint,
    Limits,
    ModelCounter,
    NoTools,
    Patience,
    Sampling,
    Tools,
    find_policy,
)
from pinnace.evals import Blobs, FolderBlobs, Item, Judge, Loaded, Plan, S3Blobs, Split, configuration
from pinnace.evals.benchmark import Benchmark
from pinnace.evals.graders import Profile, RuleGrader
from pinnace.evals.graders.rules import gaia
from pinnace.evals.source import HubData
from pinnace.storage import S3Settings, S3Uri, Storage
from pinnace.storage.settings import Patience as S3Patience
from pinnace.tiny.model import write_tiny_model

from e2e.s3 import ACCESS_KEY, SECRET_KEY, S3Server
from e2e.stored import raw_client

QUICK = Patience(give_up_after=0.2, cap=0.05, first=0.01)
_OPEN: list[Endpoint] = []


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder with tokenizer and chat template."""
    folder = tmp_path_factory.mktemp("tiny")
    write_tiny_model(folder)
    return folder


@pytest.fixture(scope="session")
def counter(tiny: Path) -> ModelCounter:
    return ModelCounter.from_directory(tiny)


@pytest.fixture
def storage(s3: S3Server) -> Storage:
    bucket = f"test-{secrets.token_hex(6)}"
    raw_client(s3.endpoint).create_bucket(Bucket=bucket)
    return Storage(
        S3Settings(
            bucket,
            endpoint=s3.endpoint,
            access_key=ACCESS_KEY,
            secret_key=SECRET_KEY,
            patience=S3Patience(connect=1, read=2, attempts=2),
        )
    )


@pytest.fixture(params=["folder", "s3"])
def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> Blobs:
    """Both kinds of store."""
    if request.param == "folder":
        return FolderBlobs(tmp_path / "store")
    storage: Storage = request.getfixturevalue("storage")
    return S3Blobs(storage, S3Uri(storage.settings.bucket, "evals"), patience=5)


@pytest.fixture(autouse=True)
async def close_connections() -> AsyncIterator[None]:
    """Before the event loop goes."""
    yield
    while _OPEN:
        await _OPEN.pop().aclose()


def endpoint(url: str, *, temperature: float | None = 0) -> Endpoint:
    made = Endpoint.at(url, "scripted", Sampling(256, temperature), timeout=5)
    made._patience = QUICK
    _OPEN.append(made)
    return made


def judge_at(url: str, tries: int = 2) -> Judge:
    return Judge(endpoint(url), tries)


def sums(count: int) -> Loaded:
    """`count` questions of our own, graded by GAIA's rule."""
    items = tuple(
        Item(f"sum-{number:03d}", f"What is {number}+1?", str(number + 1), groups={"odd": str(number % 2)})
        for number in range(count)
    )
    benchmark = Benchmark(
        name="sums",
        title="Sums",
        splits={"all": Split(HubData("sums", ("*.jsonl",)))},
        read=lambda _: iter(items),
        system="Answer as <answer>…</answer>.",
        rule="tag|final",
        profiles={"official": Profile(RuleGrader("gaia", gaia))},
    )
    return Loaded(benchmark, "all", items, "sha256:" + "a" * 64, "sha256:" + "a" * 64)


@asynccontextmanager
async def no_tools(item: Item) -> AsyncIterator[Tools]:
    yield NoTools()


Setup = Callable[..., tuple[Plan, Agent]]


@pytest.fixture
def setup(counter: ModelCounter) -> Setup:
    """Makes (plan, agent) for `sums` or a loaded benchmark and a model's address."""

    def make(
        url: str, loaded: Loaded, *, attempts: int = 1, profile: str = "official", **more: Any
    ) -> tuple[Plan, Agent]:
        agent = Agent(
            model=endpoint(url),
            counter=counter,
            budget=Budget(4096, 256),
            policy=find_policy("truncate"),
            limits=Limits(turns=20),
            rule=AnswerRule(loaded.benchmark.rule),
        )
        config = configuration(agent, loaded, model_digest="sha256:1", sampling={}, tools="none", second=None)
        chosen = loaded.benchmark.profile(profile)
        return Plan(loaded, attempts, config, chosen, profile, **more), agent

    return make
