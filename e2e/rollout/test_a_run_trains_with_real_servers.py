"""A whole RLRun around a real server: the operator's containers as processes here, weights by a real S3.

The server, its mirror and its `prepare` run on an interpreter that has what the server's image has, and no more.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pinnace.chat import ChatTokenizer
from pinnace.rl.rollout import SamplingParameters
from pinnace.rl.server.probe import Needs, connect

from e2e.oracles.rollout import KINDS, Kind, install
from e2e.s3 import S3Server, s3_server
from tests.rl.pods import Pods, stored

from .conftest import Reference, check, prompts

pytestmark = pytest.mark.slow

STEPS = 3
RUN: dict[str, Any] = {
    "steps": STEPS, "contextTokens": 512, "turnTokens": 48, "agent": {"loop": {"turns": 3}, "attemptSeconds": 120},
    "schedule": {"groupsPerStep": 2, "groupSize": 4, "maxStaleness": 1, "concurrency": 16},
    "trainer": {
        "device": "cpu", "engine": "Torch", "precision": "fp32", "gradientCheckpointing": False, "tokenBudget": 2048,
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Server]:
    with s3_server() as server:
        yield server


@pytest.fixture
def pods(s3: S3Server, model: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Pods]:
    kind: Kind = request.param
    storage, uri = stored(s3, model)
    made = Pods(tmp_path, s3, storage, uri, server=install(kind), rollout={kind: {"device": "cpu"}}, **RUN)
    yield made
    made.end()


@pytest.mark.parametrize("pods", KINDS, indirect=True)
async def test_a_run_trains_and_the_server_ends_with_the_trainers_weights(pods: Pods) -> None:
    pods.prepare()
    pods.start_all()
    assert pods.ended("trainer", 600) == 0, pods.log()
    assert pods.ended("sampler", 60) == 0
    written = (pods.folder / "trainer/run/metrics.jsonl").read_text().splitlines()
    lines = [json.loads(line) for line in written]
    assert [line["step"] for line in lines] == list(range(1, STEPS + 1))
    assert all(line["turns"] > 1 for line in lines), "the model calls its tool"
    # On policy what is left is the order of float32's sums; a step of the optimizer later it is more.
    assert lines[0]["mismatch_max"] < 2e-3
    done = pods.said("trainer")
    assert done is not None
    assert done.output is not None
    pods.storage.fetch(done.output.uri, pods.folder / "output", done.output.digest)
    tokenizer = ChatTokenizer.from_directory(pods.folder / "output")
    engine = await connect(pods.server, Needs(tokenizer=tokenizer, context_tokens=512))
    try:
        assert await engine.version() == STEPS
        (prompt,) = prompts(tokenizer, 1)
        made = await engine.generate(prompt, SamplingParameters(max_tokens=16))
        check(made, Reference(pods.folder / "output").logprobs(prompt, made.ids))
    finally:
        await engine.close()
