"""Summary, page, tables and Inspect logs of one run, and the guard against contamination."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from pinnace.agent import Event, EventLog
from pinnace.agent import Summary as Trajectory
from pinnace.agent.events import Began, Call, Ended, Folded, Nudged, Refined, Replied, Turned, Usage
from pinnace.agent.tools import Reply
from pinnace.evals import BadPlan, FolderBlobs, Grade, Record, Spending, Unit, Verdict
from pinnace.evals.command import compare_summaries
from pinnace.evals.contamination import Guard, GuardedTools
from pinnace.evals.report import Summary, summarise_run
from pinnace.evals.report.inspect_log import write_inspect_log
from pinnace.evals.report.page import render
from pinnace.evals.report.table import leaderboard
from pinnace.evals.report.write import read_summaries, write_report

from e2e.oracle import ask_inspect

from .conftest import Setup, sums

EVIL = "<script>alert(1)</script><img src=x onerror=alert(2)>"


@pytest.fixture
def summary(setup: Setup) -> Summary:
    """Four questions, two attempts: right, wrong, unknown and unfinished ones."""
    plan, _ = setup("http://127.0.0.1:9/v1", sums(4), attempts=2)
    items = tuple(replace(item, question=item.question + EVIL) for item in plan.loaded.items)
    plan = replace(plan, loaded=replace(plan.loaded, items=items))
    verdicts = {
        ("sum-000", 0): Verdict.RIGHT, ("sum-000", 1): Verdict.WRONG, ("sum-001", 0): Verdict.RIGHT,
        ("sum-001", 1): Verdict.RIGHT, ("sum-002", 0): Verdict.UNKNOWN, ("sum-002", 1): Verdict.WRONG,
        ("sum-003", 0): Verdict.WRONG,
    }  # fmt: skip
    records, grades = {}, {}
    for unit in plan.units():
        verdict = verdicts.get((unit.item, unit.attempt))
        if verdict is None:
            continue
        usage = Usage(prompt=1000, completion=100, cached=500)
        trajectory = Trajectory(termination="answered", turns=3, calls=4, usage=usage, seconds=2, tool_errors=1)
        records[unit] = Record(benchmark="sums", split="all", revision="r", item=unit.item, attempt=unit.attempt,
                               config="c", question="q", answer=f"a{EVIL}", summary=trajectory)  # fmt: skip
        grades[unit] = Grade(verdict=verdict, extracted="x", confidence=80, explanation=EVIL)
    return summarise_run(plan, records, grades, spending=Spending(prompt_price=1, completion_price=10))


def events(*_: Any) -> Sequence[Event]:
    call = Call(id="r0-0", name="search", arguments={"query": EVIL})
    return EventLog(
        [
            Began(question="Q" + EVIL, system="S"),
            Turned(content="looking" + EVIL, reasoning="thinking" + EVIL, calls=(call,)),
            Replied(call="r0-0", name="search", outcome="ok", text="raw text of the page"),
            Refined(call="r0-0", text="refined text", spans=((0, 3),)),
            Folded(before=1, text="the notes"),
            Nudged(reason="turns", text="stop here"),
            Turned(content="<answer>2</answer>", forced="turns"),
            Ended(termination="turns", answer="2", forced=True),
        ]
    )


def test_denominators_are_fixed_and_unknown_counts_neither_way(summary: Summary) -> None:
    assert (summary.planned, summary.finished) == (8, 7)
    assert (summary.right, summary.wrong, summary.unknown, summary.unfinished) == (3, 3, 1, 1)
    assert summary.score is not None
    # 1/2, 2/2, 0/1 (one unknown), 0/2 (one unfinished)
    assert summary.score.value == pytest.approx(1.5 / 4)
    assert summary.score.if_unknown_right == pytest.approx(2 / 4)
    assert summary.pass_at[2] == pytest.approx(2 / 3), "two attempts are undefined for the question with one verdict"
    assert summary.undefined == {1: 0, 2: 1}
    assert summary.efforts.cost == pytest.approx(7 * (1000 + 1000) / 1e6)
    assert summary.efforts.tool_error_rate == pytest.approx(1 / 4)


class _Page(HTMLParser):
    """What a browser would load or run."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def test_the_page_is_self_contained_and_runs_nothing_of_what_it_shows(summary: Summary) -> None:
    html = render([summary], trajectories=events)
    page = _Page()
    page.feed(html)
    assert [tag for tag, _ in page.tags].count("script") == 1, "a text became a script"
    assert not [attrs for _, attrs in page.tags if "src" in attrs or any(name.startswith("on") for name in attrs)]
    assert all((attrs.get("href") or "#").startswith("#") for _, attrs in page.tags)
    policy = next(attrs for tag, attrs in page.tags if attrs.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in (policy["content"] or "")
    for text in (
        "37.5 %",
        "refined text",
        "raw text of the page",
        "the notes",
        "thinking",
        "asked to answer",
        "pass@k",
    ):
        assert text in html
    assert html.count("<svg") >= 3
    assert "without verdict" in html


def test_a_page_has_a_bound(summary: Summary) -> None:
    html = render([summary], trajectories=events, most_bytes=10)
    assert html.count("raw text of the page") == 1
    assert "The trajectory is in the records, item sum-001, attempt 0" in html


def test_every_form_is_written_and_read_back(summary: Summary, tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    blobs = FolderBlobs(tmp_path)
    names = write_report(blobs, [summary], trajectories=events)
    assert {name.rpartition("/")[2] for name in names} == {
        "summary.json", "leaderboard.md", "report.html", "attempts.parquet", "sums.eval"
    }  # fmt: skip
    assert read_summaries(blobs) == [summary]
    table = pq.read_table(tmp_path / "report/attempts.parquet").to_pylist()
    assert len(table) == 8
    assert {row["verdict"] for row in table} == {"right", "wrong", "unknown", "unfinished"}
    assert json.loads((tmp_path / "report/summary.json").read_text())[0]["passAt"]["1"] is not None
    line = leaderboard([summary]).splitlines()[-1]
    assert re.search(r"\| Sums \(all\) \| scripted \| truncate \| official \(rule\) \| 4 × 2 \| 37\.5 ± ", line)


ORACLE = """
import json, sys
from inspect_ai.log import read_eval_log
log = read_eval_log(json.load(sys.stdin))
print(json.dumps({
    "status": log.status, "task": log.eval.task, "model": log.eval.model, "epochs": log.eval.config.epochs,
    "accuracy": log.results.scores[0].metrics["accuracy"].value,
    "samples": [[s.id, s.epoch, str(list(s.scores.values())[0].value), s.target] for s in log.samples],
    "messages": [[m.role, m.text] for m in log.samples[0].messages],
    "calls": [c.function for m in log.samples[0].messages for c in (getattr(m, "tool_calls", None) or [])],
}))
"""


@pytest.mark.slow
def test_inspect_reads_our_logs(summary: Summary, tmp_path: Path) -> None:
    path, script = tmp_path / "sums.eval", tmp_path / "read.py"
    write_inspect_log(summary, path, trajectories=events)
    script.write_text(ORACLE)
    read: Mapping[str, Any] = ask_inspect(script, str(path))
    assert (read["status"], read["task"], read["model"], read["epochs"]) == (
        "success",
        "sums",
        "openai-api/scripted",
        2,
    )
    assert read["accuracy"] == pytest.approx(1.5 / 4)
    assert [each[2] for each in sorted(read["samples"])] == ["C", "I", "C", "C", "nan", "I", "I", "I"]
    assert read["messages"][0] == ["system", "S"]
    assert read["calls"] == ["search"]


def test_two_runs_are_compared_question_by_question(summary: Summary) -> None:
    items = [item.model_copy(update={"attempts": [attempt.model_copy(update={"verdict": "right"}) for attempt in
                                                  item.attempts]}) for item in summary.items]  # fmt: skip
    better = summary.model_copy(update={"items": items})
    found = compare_summaries(summary, better)
    assert found is not None
    assert (found.result.fixed, found.result.broken) == (3, 0)
    assert found.result.difference.value == pytest.approx(1 - 1.5 / 4)
    other = summary.model_copy(update={"grader": summary.grader.model_copy(update={"digest": "judge:x"})})
    with pytest.raises(BadPlan, match="rescore"):
        compare_summaries(summary, other)


def test_calibration_is_reported_where_confidence_is_stated(setup: Setup) -> None:
    plan, _ = setup("http://127.0.0.1:9/v1", sums(2))
    benchmark = replace(plan.loaded.benchmark, calibrated=True)
    plan = replace(plan, loaded=replace(plan.loaded, benchmark=benchmark))
    records, grades = {}, {}
    for unit, verdict in zip(plan.units(), (Verdict.RIGHT, Verdict.WRONG), strict=True):
        records[unit] = Record(benchmark="sums", split="all", revision="r", item=unit.item, attempt=0, config="c",
                               question="q", summary=Trajectory(termination="answered"))  # fmt: skip
        grades[unit] = Grade(verdict=verdict, confidence=90)
    found = summarise_run(plan, records, grades)
    assert found.calibration["rms"] == pytest.approx(0.4)
    assert found.calibration["ece10"] == pytest.approx(0.4)


class Web:
    """A search tool that returns what it is told."""

    def __init__(self, text: str) -> None:
        self.text, self.calls = text, 0

    async def schemas(self) -> Sequence[Mapping[str, Any]]:
        return []

    async def call(self, name: str, arguments: Mapping[str, Any]) -> Reply:
        self.calls += 1
        return Reply("ok", self.text, {"server": "web"})


@pytest.mark.parametrize(
    ("address", "blocked"),
    [
        ("https://huggingface.co/datasets/gaia-benchmark/GAIA", True),
        ("http://www.HuggingFace.co/datasets/x", True),
        ("huggingface.co/spaces/gaia-benchmark/leaderboard", True),
        ("https%3A%2F%2Fhuggingface.co%2Fdatasets%2Fcais%2Fhle", True),
        ("https://hf-mirror.com/datasets/cais/hle?x=1", True),
        ("https://github.com/xbench-ai/xbench-evals/blob/main/data", True),
        ("https://huggingface.co//datasets/x", True),
        ("https://huggingface.co/docs", False),
        ("https://huggingface.co", False),
        ("https://github.com/xbench-ai-fans/other", False),
        ("https://nothuggingface.co/datasets/x", False),
        ("https://en.wikipedia.org/wiki/Dataset", False),
    ],
)
async def test_pages_of_the_benchmark_are_not_fetched(address: str, blocked: bool) -> None:
    web = Web("hello")
    tools = GuardedTools(web, Guard(["github.com/xbench-ai/xbench-evals"]))
    reply = await tools.call("fetch", {"options": {"urls": [f"see {address}"]}})
    assert (reply.outcome == "denied") is blocked
    assert web.calls == (not blocked)
    assert bool(reply.meta.get("blocked")) is blocked


async def test_results_from_blocked_pages_are_left_out_of_a_search() -> None:
    text = "1. Boats\nhttps://boats.example\n\n2. GAIA answers\nhttps://huggingface.co/datasets/gaia\n\n3. Ships"
    reply = await GuardedTools(Web(text), Guard()).call("search", {"query": "boats"})
    assert "Boats" in reply.text
    assert "Ships" in reply.text
    assert "GAIA answers" not in reply.text
    assert reply.meta == {"server": "web", "removed": 1}


async def test_a_page_with_the_canary_is_withheld_and_counted() -> None:
    canary = "canary GUID 26b5c67b"
    reply = await GuardedTools(Web(f"… {canary} …"), Guard([], [canary, "x", None])).call("search", {"query": "a"})
    assert (reply.outcome, reply.meta["canary"]) == ("denied", True)
    assert canary not in reply.text
    assert (await GuardedTools(Web("x marks"), Guard([], ["x"])).call("s", {})).outcome == "ok", "too short to mean it"


def test_units_know_their_place() -> None:
    assert Unit("a b", "slug", 3).attempt == 3
