"""128 pages, one after the other: `pinnace eval` with a real gateway, a real world, and a real vLLM that writes what an
oracle chooses (steered.py). What is read is quoted, what no longer fits is folded, and nothing of the way is lost.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import httpx
import pytest
from pinnace.agent import Event, read_events
from pinnace.agent.events import Folded, Refined, Replied, Turned
from pinnace.evals.benchmarks import find
from pinnace.evals.records import Record
from pinnace.tiny.model import write_tiny_model

from e2e.gateway.lab import TOKEN, lab, server
from e2e.oracles.rollout import rollout_server
from e2e.rollout.steered import steered
from e2e.scout import Oracle, read_tasks
from e2e.world import serve_world

pytestmark = pytest.mark.slow

QUESTION = "test-en-128-0000"
DATA = Path(find("scout").splits["test"].data.shipped or "") / "test.jsonl.gz"
CONTEXT = 8192
BLOCK = 128
"""Tokens of one entry of vLLM's prefix cache on a CPU."""
POLICY = """
name: explorer
refine: {overTokens: 400, inputTokens: 4000, outputTokens: 600}
fold: {atPercent: 80}
"""
REPORT = Path("out/oracle/report.html")


@dataclass(frozen=True)
class Explored:
    """One trajectory, as it was recorded; `cache`: what the server counted, of (asked, hit) tokens."""

    record: Record
    events: Sequence[Event]
    page: str
    cache: tuple[float, float]

    @property
    def turns(self) -> list[Turned]:
        return [event for event in self.events if isinstance(event, Turned)]

    @property
    def refined(self) -> list[Refined]:
        return [event for event in self.events if isinstance(event, Refined)]

    @property
    def raw(self) -> dict[str, str]:
        return {event.call: event.text for event in self.events if isinstance(event, Replied)}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with a longer context."""
    folder = tmp_path_factory.mktemp("explorer") / "tiny"
    write_tiny_model(folder)
    config = folder / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "max_position_embeddings": CONTEXT}))
    return folder


@pytest.fixture(scope="module")
def vllm(model: Path) -> Iterator[str]:
    options = ("--enable-auto-tool-choice", "--tool-call-parser", "hermes", "--enable-prompt-tokens-details")
    with rollout_server("vllm", model, *options) as process:
        yield process.url


@pytest.fixture(scope="module")
def explored(vllm: str, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Explored:
    folder = tmp_path_factory.mktemp("explored")
    oracle = Oracle(read_tasks(DATA))
    (folder / "policy.yaml").write_text(POLICY)
    (folder / "ids").write_text(QUESTION)

    async def play(gateway: str) -> None:
        async with steered(vllm, oracle) as url:
            command = ["scout", "--base-url", url, "--tokenizer", model, "--tools", gateway, "--ids", folder / "ids",
                       "--policy", folder / "policy.yaml", "--max-tokens", 600, "--temperature", 0, "-o",
                       folder / "out"]  # fmt: skip
            run = [sys.executable, "-c", "from pinnace.cli import main; main()", "eval", *map(str, command)]
            process = await asyncio.create_subprocess_exec(*run, env={**os.environ, "PINNACE_TOOLS_TOKEN": TOKEN})
            assert await process.wait() == 0

    with lab(folder) as gateways:
        gateway = gateways.gateway({"servers": [server("world", serve_world(gateways))]})
        gateway.wait_tools("search", "open", "find")
        asyncio.run(play(gateway.url))
    assert not oracle.lost
    (place,) = (folder / "out/runs").rglob("record.json")
    record = Record.model_validate_json(place.read_bytes())
    events = read_events(gzip.decompress((place.parent / record.trajectory).read_bytes()))
    REPORT.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(folder / "out/report/report.html", REPORT)
    return Explored(record, events, REPORT.read_text(), _cache(vllm))


def _cache(vllm: str) -> tuple[float, float]:
    text = httpx.get(f"{vllm}/metrics", timeout=60).text
    asked, hit = (
        sum(map(float, re.findall(rf"^vllm:prefix_cache_{name}_total{{.*}} (\S+)$", text, re.MULTILINE)))
        for name in ("queries", "hits")
    )
    return asked, hit


def test_the_way_is_gone_to_its_end_and_the_answer_is_right(explored: Explored) -> None:
    summary, task = explored.record.summary, next(each for each in read_tasks(DATA).values() if each["id"] == QUESTION)
    assert (summary.termination, explored.record.answer) == ("answered", task["answer"])
    assert summary.turns >= 120
    assert summary.outcomes == {"ok": summary.calls}
    _tell(explored)


def test_what_is_quoted_stands_where_it_is_said_to_stand(explored: Explored) -> None:
    assert len(explored.refined) >= 100
    assert explored.record.summary.unsupported == explored.record.summary.fallbacks == 0
    for refined in explored.refined:
        raw = explored.raw[refined.call]
        assert refined.spans, "a page of the way states a fact"
        assert all(raw[start:end] in refined.text for start, end in refined.spans)
    task = next(each for each in read_tasks(DATA).values() if each["id"] == QUESTION)
    quoted = [explored.raw[each.call][start:end] for each in explored.refined for start, end in each.spans]
    plain = "\n".join(re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", quote) for quote in [*quoted, *_short(explored)])
    assert not [fact for fact in task["evidence"] if fact["statement"] not in plain]


def _short(explored: Explored) -> list[str]:
    """Results that nobody had to shorten."""
    refined = {each.call for each in explored.refined}
    return [text for call, text in explored.raw.items() if call not in refined]


def test_the_context_is_folded_and_never_too_long_for_the_server(explored: Explored) -> None:
    assert explored.record.summary.folds >= 2
    for turn in explored.turns:
        assert 0 < turn.usage.prompt <= turn.view_tokens <= CONTEXT - 600, "the server's count is below ours"


def test_between_folds_the_server_has_all_of_the_turn_before_in_its_cache(explored: Explored) -> None:
    told = [event for event in explored.events if isinstance(event, Turned | Folded)]
    after = [(one, other) for one, other in pairwise(told) if isinstance(one, Turned) and isinstance(other, Turned)]
    assert len(after) >= 100
    assert not [pair for pair in after if pair[1].usage.cached <= pair[0].usage.prompt - BLOCK]


def test_the_report_has_the_whole_trajectory(explored: Explored) -> None:
    assert explored.page.count("Folded (summary)") == explored.record.summary.folds
    assert f"Turn {explored.record.summary.turns}<" in explored.page
    assert f"{explored.turns[-1].usage.cached} cached" in explored.page
    assert "Fact 128 of 128" in explored.page


def _tell(explored: Explored) -> None:
    """The numbers of docs/evals.md."""
    summary, (asked, hit) = explored.record.summary, explored.cache
    before, second, own = 0.0, 0.0, 0.0
    for event in explored.events:
        gap, before = event.t - before, event.t
        if isinstance(event, Refined | Folded):
            second += gap
        else:
            own += gap - (event.seconds if isinstance(event, Turned | Replied) else 0)
    print(
        f"\n{summary.turns} turns, {summary.folds} folds, {summary.refined} results refined; "
        f"{summary.usage.prompt:,} + {summary.usage.completion:,} tokens, and {summary.second_usage.prompt:,} + "
        f"{summary.second_usage.completion:,} of the second model\n"
        f"prefix cache: {100 * summary.prefix_share:.1f} % of the agent's prompts, {100 * hit / asked:.1f} % of all\n"
        f"{summary.seconds:.0f} s: model {summary.model_seconds:.1f}, second model {second:.1f}, tools "
        f"{summary.tool_seconds:.1f}, bookkeeping {own:.2f} s ({100 * own / summary.seconds:.2f} %)\n"
        f"report: {REPORT.resolve()}"
    )
