"""Whole runs: shards, crashes, budgets, failing judges and tools, and grading again."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pinnace.agent import Agent, Tools
from pinnace.agent.tools import Reply
from pinnace.evals import (
    BadPlan,
    Blobs,
    FolderBlobs,
    Item,
    Plan,
    Profile,
    Progress,
    Records,
    Shard,
    Spending,
    Verdict,
    work,
)
from pinnace.evals.graders import JudgeGrader, JudgePrompt, readings
from pinnace.evals.grading import grade_all
from pinnace.evals.report import summarise_run

from e2e.faults.model import Answer, Request, Trouble, scripted_model

from .conftest import Setup, judge_at, no_tools, sums

QUICK = Shard(concurrency=8, ttl=1, checkpoint_seconds=0.05)


def question(request: Request) -> str:
    return str(next(message["content"] for message in request["messages"] if message["role"] == "user"))


def right(request: Request) -> Answer:
    number = int(question(request).removeprefix("What is ").partition("+")[0])
    return Answer(f"<answer>{number + 1}</answer>")


def mostly(request: Request) -> Answer:
    """Wrong on every third question."""
    number = int(question(request).removeprefix("What is ").partition("+")[0])
    return Answer(f"<answer>{number + (number % 3 != 0)}</answer>")


async def test_every_attempt_has_one_record_and_one_verdict(setup: Setup, blobs: Blobs) -> None:
    async with scripted_model(mostly) as model:
        plan, agent = setup(model.url, sums(9), attempts=2)
        records = Records(blobs, plan.place)
        done = await work(plan, agent, no_tools, records, QUICK)
        assert (done.done, done.kept, done.total) == (18, 0, 18)
        found = records.read(plan.units())
        grades = records.read_grades(plan.units(), plan.grader)
        assert set(found) == set(grades) == set(plan.units())
        summary = summarise_run(plan, found, grades)
        assert (summary.right, summary.wrong, summary.unfinished, summary.unknown) == (12, 6, 0, 0)
        assert summary.score is not None
        assert summary.score.value == pytest.approx(2 / 3)
        assert summary.pass_at == {1: pytest.approx(2 / 3), 2: pytest.approx(2 / 3)}
        assert summary.terminations == {"answered": 18}
        assert set(summary.groups) == {"odd"}


async def test_more_attempts_and_questions_later_keep_what_there_is(setup: Setup, tmp_path: Path) -> None:
    blobs = FolderBlobs(tmp_path)
    async with scripted_model(right) as model:
        plan, agent = setup(model.url, sums(4), attempts=1)
        await work(plan, agent, no_tools, Records(blobs, plan.place), QUICK)
        assert len(model.requests) == 4
        more, agent = setup(model.url, sums(6), attempts=3)
        done = await work(more, agent, no_tools, Records(blobs, more.place), QUICK)
        assert (done.kept, done.done) == (4, 14)
        assert len(model.requests) == 18
        other = replace(more, config={**more.config, "policyHash": "another"})
        done = await work(other, agent, no_tools, Records(blobs, other.place), QUICK)
        assert (done.kept, done.done) == (0, 18), "another configuration's records are its own"


async def test_shards_share_the_work_and_never_the_same_attempt(setup: Setup, blobs: Blobs) -> None:
    together, waiting = asyncio.Event(), list[str]()

    async def script(request: Request) -> Answer:
        waiting.append(question(request))
        if len(waiting) == 3:
            together.set()
        await asyncio.wait_for(together.wait(), 30)  # each shard has one in flight: all three are at work
        return right(request)

    async with scripted_model(script) as model:
        plan, agent = setup(model.url, sums(10), attempts=2)
        shards = [replace(QUICK, index=index, count=3, concurrency=1, ttl=30) for index in range(3)]
        done = await asyncio.gather(*(work(plan, agent, no_tools, Records(blobs, plan.place), each) for each in shards))
        asked = Counter(question(request) for request in model.requests)
        assert set(asked.values()) == {2}
        assert len(asked) == 10
        assert sum(each.done for each in done) == 20
        workers = {record.worker for record in Records(blobs, plan.place).read(plan.units()).values()}
        assert workers == {"shard-0", "shard-1", "shard-2"}


async def test_a_dead_shards_attempt_is_taken_over_where_it_stopped(setup: Setup, blobs: Blobs) -> None:
    reached = asyncio.Event()

    async def script(request: Request) -> Answer:
        results = [message for message in request["messages"] if message["role"] == "tool"]
        if len(results) == 2 and not reached.is_set():
            reached.set()
            await asyncio.sleep(60)
        return Answer(calls=[("look", {"page": len(results)})]) if len(results) < 3 else Answer("<answer>1</answer>")

    looked: list[int] = []

    class Pages:
        async def schemas(self) -> Any:
            return [{"type": "function", "function": {"name": "look", "parameters": {}}}]

        async def call(self, name: str, arguments: Any) -> Any:
            looked.append(arguments["page"])
            return Reply("ok", f"page {arguments['page']}")

    @asynccontextmanager
    async def pages(item: Item) -> AsyncIterator[Tools]:
        yield Pages()

    async with scripted_model(script) as model:
        plan, agent = setup(model.url, sums(1))
        records = Records(blobs, plan.place)
        first = asyncio.create_task(work(plan, agent, pages, records, replace(QUICK, index=0, count=2)))
        await reached.wait()
        async with asyncio.timeout(30):
            while len(records.pieces(plan.units()[0])[0]) < 5:  # noqa: ASYNC110 - began, two turns, their replies
                await asyncio.sleep(0.02)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        done = await work(plan, agent, pages, records, replace(QUICK, index=1, count=2))
        assert done.done == 1
        assert looked == [0, 1, 2], "what was paid for and written was done again"
        record = records.read(plan.units())[plan.units()[0]]
        assert (record.worker, record.answer) == ("shard-1", "1")
        assert record.summary.turns == 4


async def test_what_the_budget_does_not_reach_counts_as_not_solved_and_is_listed(setup: Setup, tmp_path: Path) -> None:
    async with scripted_model(right) as model:
        plan, agent = setup(model.url, sums(20))
        records = Records(FolderBlobs(tmp_path), plan.place)
        done = await work(plan, agent, no_tools, records, replace(QUICK, concurrency=1), spending=Spending(tokens=20))
        assert "tokens" in done.stopped
        found = records.read(plan.units())
        assert 0 < len(found) < 20
        summary = summarise_run(plan, found, records.read_grades(plan.units(), plan.grader))
        assert summary.unfinished == 20 - len(found)
        assert summary.score is not None
        assert summary.score.value == pytest.approx(len(found) / 20), "the denominator is the plan's"
        assert any("did not finish" in warning for warning in summary.warnings)


def judged(plan: Plan, url: str) -> Plan:
    return replace(
        plan,
        profile=Profile(JudgeGrader(JudgePrompt.shipped("hle", readings.hle)), "gpt-4o"),
        judge=judge_at(url, tries=1),
    )


async def test_a_failing_judge_moves_no_score_and_is_asked_again_later(setup: Setup, tmp_path: Path) -> None:
    up = False

    def judge(request: Request) -> Answer | Trouble:
        asked = request["messages"][0]["content"]
        if not up and "What is 1+1?" in asked:
            return Trouble(503)
        return Answer("correct: no" if "What is 0+1?" in asked else "correct: yes")

    async with scripted_model(right) as model, scripted_model(judge) as second:
        plan, agent = setup(model.url, sums(4))
        plan = judged(plan, second.url)
        records = Records(FolderBlobs(tmp_path), plan.place)
        await work(plan, agent, no_tools, records, QUICK)

        def summary() -> Any:
            return summarise_run(plan, records.read(plan.units()), records.read_grades(plan.units(), plan.grader))

        first = summary()
        assert (first.right, first.wrong, first.unknown) == (2, 1, 1)
        assert first.score.value == pytest.approx(2 / 3), "an unknown verdict is no wrong answer"
        assert (first.score.if_unknown_wrong, first.score.if_unknown_right) == (0.5, 0.75)
        assert first.undefined == {1: 1}
        assert not first.grader.comparable
        asked, up = len(model.requests), True
        done = await grade_all(plan, records)
        assert (done.graded, done.kept, done.unknown) == (1, 3, 0)
        assert len(model.requests) == asked, "grading ran the agent"
        assert (summary().right, summary().unknown) == (3, 0)
        again = await grade_all(plan, records, again=True)
        assert again.graded == 4


async def test_infrastructure_that_fails_is_tried_anew_and_never_blamed(setup: Setup, tmp_path: Path) -> None:
    opened = Counter[str]()

    class Flaky:
        def __init__(self, broken: bool) -> None:
            self.broken = broken

        async def schemas(self) -> Any:
            return [{"type": "function", "function": {"name": "look", "parameters": {}}}]

        async def call(self, name: str, arguments: Any) -> Any:
            return Reply("unavailable", "gone") if self.broken else Reply("ok", "fine")

    @asynccontextmanager
    async def tools(item: Item) -> AsyncIterator[Tools]:
        opened[item.id] += 1
        yield Flaky(broken=item.id == "sum-001" or (item.id == "sum-002" and opened[item.id] == 1))

    def script(request: Request) -> Answer:
        results = [message["content"] for message in request["messages"] if message["role"] == "tool"]
        return right(request) if "fine" in results else Answer(calls=[("look", {"n": len(results)})])

    async with scripted_model(script) as model:
        plan, agent = setup(model.url, sums(3))
        agent = replace(agent, limits=agent.limits.model_copy(update={"infrastructure": 2}))
        records = Records(FolderBlobs(tmp_path), plan.place)
        await work(plan, agent, tools, records, QUICK)
        assert opened == {"sum-000": 1, "sum-001": 3, "sum-002": 2}
        summary = summarise_run(plan, records.read(plan.units()), records.read_grades(plan.units(), plan.grader))
        assert summary.terminations == {"answered": 2, "tool_infrastructure": 1}
        assert summary.not_the_agent == 1
        assert summary.score is not None
        assert summary.score.value == pytest.approx(2 / 3), "it is not solved, and it is listed"


async def test_an_attempt_that_crashes_does_not_take_the_others_with_it(setup: Setup, tmp_path: Path) -> None:
    @asynccontextmanager
    async def tools(item: Item) -> AsyncIterator[Tools]:
        if item.id == "sum-001":
            raise RuntimeError("a bug in the tools")
        async with no_tools(item) as made:
            yield made

    async with scripted_model(right) as model:
        plan, agent = setup(model.url, sums(4))
        records = Records(FolderBlobs(tmp_path), plan.place)
        done = await work(plan, agent, tools, records, QUICK)
        assert [unit.item for unit in done.crashed] == ["sum-001"]
        assert "a bug in the tools" in next(iter(done.crashed.values()))
        assert len(records.read(plan.units())) == 3


async def test_progress_is_told(setup: Setup, tmp_path: Path) -> None:
    seen: list[int] = []

    def tell(progress: Progress) -> None:
        seen.append(progress.done)

    async with scripted_model(right) as model:
        plan, agent = setup(model.url, sums(3))
        await work(plan, agent, no_tools, Records(FolderBlobs(tmp_path), plan.place), QUICK, on_progress=tell)
    assert seen[0] == 0
    assert seen[-1] == 3


async def test_mistakes_are_found_before_anything_is_asked(setup: Setup) -> None:
    async with scripted_model(right) as model:
        plan, _ = setup(model.url, sums(3), attempts=4)
        with pytest.raises(BadPlan, match=r"pass@8 is undefined for 4 attempts"):
            plan.check(pass_at=8)
        with pytest.raises(BadPlan, match="--judge-url"):
            replace(judged(plan, model.url), judge=None).check()
        assert not model.requests


async def test_the_reference_never_reaches_the_agent(setup: Setup, tmp_path: Path) -> None:
    async with scripted_model(lambda _: Answer("<answer>x</answer>")) as model:
        loaded = sums(2)
        items = tuple(replace(item, answer=f"the-secret-{item.id}") for item in loaded.items)
        plan, agent = setup(model.url, replace(loaded, items=items))
        await work(plan, agent, no_tools, Records(FolderBlobs(tmp_path), plan.place), QUICK)
        assert "the-secret" not in str(model.requests)


def test_a_rule_and_a_judge_file_their_verdicts_apart(setup: Setup) -> None:
    plan, _ = setup("http://127.0.0.1:9/v1", sums(1))
    with_judge = judged(plan, "http://127.0.0.1:9/v1")
    assert plan.grader == "rule:gaia:1"
    assert with_judge.grader.endswith("@scripted")
    assert Verdict.UNKNOWN == "unknown"


Made = tuple[Plan, Agent]
