"""Gateway, judge and store fail for a while, with real parts: the table is what it would have been."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from pinnace.agent import Budget, ModelCounter, Patience
from pinnace.evals import Item, Judge, Profile, Records, S3Blobs, Shard, load, work
from pinnace.evals.benchmarks import find
from pinnace.evals.blobs import FolderBlobs
from pinnace.evals.graders import JudgeGrader, JudgePrompt, readings
from pinnace.evals.report import Summary, summarise_run
from pinnace.evals.tools import GatewayOptions, GatewayTools
from pinnace.storage import S3Settings, S3Uri, Storage
from pinnace.storage.settings import Patience as S3Patience
from pinnace.tools.outcome import Outcome

from e2e.faults.flaky import flaky
from e2e.faults.model import Answer, Request, Trouble, scripted_model
from e2e.gateway import sandboxes
from e2e.gateway.lab import TOKEN, Lab, eventually, lab, server
from e2e.s3 import ACCESS_KEY, SECRET_KEY, S3Server, s3_server
from e2e.scout import Oracle, read_tasks
from e2e.stored import raw_client
from e2e.world import serve_world

from .conftest import Setup, endpoint, no_tools, sums

QUICK = Shard(concurrency=8, ttl=5, checkpoint_seconds=0.1)
SANDBOXES = 4


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Lab]:
    (tmp_path / "lab").mkdir()
    with lab(tmp_path / "lab") as made:
        yield made


def mostly(request: Request) -> Answer:
    """Wrong on every fourth sum."""
    text = next(str(message["content"]) for message in request["messages"] if message["role"] == "user")
    number = int(text.removeprefix("What is ").partition("+")[0])
    return Answer(f"<answer>{number + (number % 4 != 0)}</answer>")


def table(summary: Summary) -> dict[str, list[str]]:
    return {item.item: [attempt.verdict for attempt in item.attempts] for item in summary.items}


async def test_a_gateway_that_fails_a_fifth_of_all_requests_costs_no_point_and_no_sandbox(
    own: Lab, setup: Setup, counter: ModelCounter, tmp_path: Path
) -> None:
    agents = await asyncio.to_thread(sandboxes.start, own, SANDBOXES)
    gateway = own.gateway({"servers": [server("world", serve_world(own))], **sandboxes.configuration(agents)})
    await asyncio.to_thread(gateway.wait_tools, "open", "find")
    await asyncio.to_thread(sandboxes.ready, gateway, SANDBOXES)
    benchmark = find("scout")
    loaded = load(benchmark, split="short")
    oracle = Oracle(read_tasks(Path(benchmark.splits["test"].data.shipped or "") / "test.jsonl.gz"))
    async with flaky(gateway.url, 0.2) as proxy, scripted_model(oracle) as model:
        plan, agent = setup(model.url, loaded, attempts=2)
        agent = replace(agent, budget=Budget(32768, 256))
        tools = GatewayTools(GatewayOptions(proxy.url, TOKEN, patience=60))
        records = Records(FolderBlobs(tmp_path / "out"), plan.place)
        done = await work(plan, agent, tools, records, QUICK)
        await tools.aclose()
    assert not done.crashed
    assert proxy.failed["/call"] >= 20
    assert proxy.failed["/sessions"] >= 5
    summary = summarise_run(plan, records.read(plan.units()), records.read_grades(plan.units(), plan.grader))
    assert not oracle.lost
    assert summary.terminations == {"answered": 60}
    assert summary.score is not None
    assert summary.score.value == 1
    assert summary.efforts.infrastructure_rate > 0.1
    assert summary.efforts.tool_error_rate == 0
    assert summary.efforts.duplicate_rate == 0, "asking again after a failure of the infrastructure is fair"
    await asyncio.to_thread(eventually, "every sandbox is free", lambda: set(agents.states()) == {"free"})


async def test_a_lease_that_ends_under_the_agent_is_the_infrastructures_failure(own: Lab) -> None:
    gateway = own.gateway(sandboxes.configuration(await asyncio.to_thread(sandboxes.start, own, 1)))
    await asyncio.to_thread(sandboxes.ready, gateway, 1)
    tools = GatewayTools(GatewayOptions(gateway.url, TOKEN))
    async with tools(Item("a", "?", "x")) as its:
        missing = await its.call("read_file", {"path": "nothing"})
        assert missing.outcome is Outcome.TOOL_ERROR
        (lease,) = gateway.get("/sessions").json()["sessions"]
        assert gateway.http.delete(f"{gateway.url}/sessions/{lease['id']}", headers=gateway.headers).status_code == 204
        assert (await its.call("read_file", {"path": "nothing"})).outcome is Outcome.UNAVAILABLE
    await tools.aclose()


async def test_a_judge_that_is_down_for_a_while_is_waited_for(setup: Setup, tmp_path: Path) -> None:
    refused = 0

    def judge(request: Request) -> Answer | Trouble:
        nonlocal refused
        if refused < 40:
            refused += 1
            return Trouble(503, drop=refused % 2 == 0)
        return Answer("correct: yes")

    async with scripted_model(mostly) as model, scripted_model(judge) as second:
        plan, agent = setup(model.url, sums(20), attempts=2)
        asked = endpoint(second.url)
        asked._patience = Patience(give_up_after=120, cap=0.2, first=0.05)
        profile = Profile(JudgeGrader(JudgePrompt.shipped("hle", readings.hle)), "gpt-4o")
        plan = replace(plan, profile=profile, judge=Judge(asked, tries=1))
        records = Records(FolderBlobs(tmp_path), plan.place)
        await work(plan, agent, no_tools, records, QUICK)
        assert refused == 40
        summary = summarise_run(plan, records.read(plan.units()), records.read_grades(plan.units(), plan.grader))
        assert (summary.unknown, summary.right, summary.unfinished) == (0, 40, 0)
        assert len(model.requests) == 40, "the agent was asked again because of the judge"


@pytest.fixture
def store() -> Iterator[S3Server]:
    """A SeaweedFS of this test's own, which it may kill."""
    with s3_server() as server:
        yield server


async def test_a_store_that_is_killed_and_comes_back_has_every_attempt_once(setup: Setup, store: S3Server) -> None:
    bucket = f"test-{secrets.token_hex(6)}"
    raw_client(store.endpoint).create_bucket(Bucket=bucket)
    patience = S3Patience(connect=1, read=2, attempts=1)
    storage = Storage(S3Settings(bucket, endpoint=store.endpoint, access_key=ACCESS_KEY, secret_key=SECRET_KEY,
                                 patience=patience))  # fmt: skip
    blobs = S3Blobs(storage, S3Uri(bucket, "evals"), patience=120)
    reached = asyncio.Event()

    def script(request: Request) -> Answer:
        if len(model.requests) >= 60:
            reached.set()
        return mostly(request)

    async with scripted_model(script) as model:
        starter = ThreadPoolExecutor(1)
        plan, agent = setup(model.url, sums(50), attempts=4)
        records = Records(blobs, plan.place)
        running = asyncio.create_task(work(plan, agent, no_tools, records, replace(QUICK, ttl=60)))
        await asyncio.wait_for(reached.wait(), 120)
        store.stop()
        asked = len(model.requests)
        await asyncio.sleep(3)
        assert not running.done(), "it gave up"
        assert len(model.requests) <= asked + QUICK.concurrency, "it went on without being able to write"
        # In a thread of its own: the run's are all waiting for the store.
        await asyncio.wrap_future(starter.submit(store.start))
        done = await asyncio.wait_for(running, 240)
        assert not done.crashed
        found, grades = records.read(plan.units()), records.read_grades(plan.units(), plan.grader)
        assert len(found) == len(grades) == 200
        wanted = {f"sum-{n:03d}": ["right" if n % 4 else "wrong"] * 4 for n in range(50)}
        assert table(summarise_run(plan, found, grades)) == wanted
        assert len(model.requests) == 200, "an attempt was made twice"
