"""Scout with the real loop, gateway and world: who knows the way is always right, who does not is never."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from pinnace.agent import Agent, AnswerRule, Budget, Endpoint, Folder, Limits, ModelCounter, Sampling, find_policy
from pinnace.evals import FolderBlobs, Loaded, Plan, Records, Shard, configuration, load, work
from pinnace.evals.benchmarks import find
from pinnace.evals.command import report_on
from pinnace.evals.report import Summary
from pinnace.evals.tools import GatewayOptions, GatewayTools
from pinnace.tools.world import Settings

from e2e.browser import opened
from e2e.faults.model import scripted_model
from e2e.faults.threads import serving
from e2e.gateway.lab import TOKEN, Gateway, Lab, lab, server
from e2e.scout import Oracle, Wanderer, read_tasks
from e2e.world import serve_world

from .test_one_command_evaluates import pinnace

PICTURES = Path("out/pictures")
DATA = Path(find("scout").splits["test"].data.shipped or "") / "test.jsonl.gz"


@dataclass(frozen=True)
class Played:
    """One run: its summary and where its report is."""

    summary: Summary
    folder: Path
    views: list[int]


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with lab(tmp_path_factory.mktemp("lab")) as made:
        yield made


@pytest.fixture(scope="module")
def gateway(own: Lab) -> Gateway:
    """Before the world that Scout's shipped questions are about."""
    made = own.gateway({"servers": [server("world", serve_world(own))]})
    made.wait_tools("search", "open", "find")
    return made


async def play(script: Any, loaded: Loaded, gateway: Gateway, counter: ModelCounter, out: Path, context: int) -> Played:
    async with scripted_model(script, counter=counter, context=context) as model:
        policy = find_policy("fold")
        assert policy.fold is not None
        reader = Endpoint.at(model.url, "scripted", Sampling(256, 0))
        agent = Agent(
            model=reader,
            counter=counter,
            budget=Budget(context, 256),
            policy=policy,
            limits=Limits(turns=1000),
            rule=AnswerRule(loaded.benchmark.rule),
            folder=Folder(reader, policy.fold, counter, input_tokens=context // 2),
        )
        tools = GatewayTools(GatewayOptions(gateway.url, TOKEN))
        digest = await tools.digest()
        config = configuration(agent, loaded, model_digest=None, sampling={}, tools=digest, second=None)
        plan = Plan(loaded, 1, config, loaded.benchmark.profile("official"), "official")
        await work(plan, agent, tools, Records(FolderBlobs(out), plan.place), Shard(concurrency=8))
        await asyncio.gather(tools.aclose(), reader.aclose())
        (summary,) = await asyncio.to_thread(report_on, [plan], FolderBlobs(out))
        return Played(summary, out, model.prompts)


@pytest.fixture(scope="module")
def played(gateway: Gateway, counter: ModelCounter, tmp_path_factory: pytest.TempPathFactory) -> Played:
    """The oracle on questions of all levels and both languages, with a context that a long way does not fit in."""
    oracle = Oracle(read_tasks(DATA))
    loaded, out = load(find("scout")), tmp_path_factory.mktemp("oracle")
    some = tuple(item for item in loaded.items if item.id.endswith("-0000") or item.groups["hops"] == "1")
    done = asyncio.run(play(oracle, replace(loaded, items=some), gateway, counter, out, 16384))
    assert not oracle.lost
    return done


@pytest.mark.slow
def test_an_oracle_answers_every_question_with_what_the_tools_give(played: Played) -> None:
    assert played.summary.questions == 24
    assert played.summary.score is not None
    assert played.summary.score.value == 1
    assert played.summary.terminations == {"answered": 24}
    assert set(played.summary.groups) == {"hops", "language", "kind"}


@pytest.mark.slow
def test_more_hops_are_more_turns_and_long_ways_are_folded_and_lose_nothing(played: Played) -> None:
    turns = {item.item: item.attempts[0].turns for item in played.summary.items}
    hops = {item.item: int(item.groups["hops"]) for item in played.summary.items}
    assert all(turns[each] > hops[each] for each in turns)
    assert sum(turns[each] >= 120 for each in turns) >= 2
    assert played.summary.efforts.folds >= 10
    assert max(played.views) <= 16384 - 256
    page = (played.folder / "report/report.html").read_text()
    assert page.count("Folded (summary)") == played.summary.efforts.folds
    assert "Fact 128 of 128" in page


@pytest.mark.slow
async def test_the_report_opens_in_chromium_and_can_be_looked_through(played: Played, tmp_path: Path) -> None:
    report = played.folder / "report/report.html"
    async with opened(report.as_uri()) as page:
        assert page.requests == [report.as_uri()], "it asked for something else"
        assert await page.evaluate("document.querySelector('.big').textContent") == "100.0 %"
        rows = "[...document.querySelectorAll('tr.item')].filter(row => row.checkVisibility()).length"
        assert await page.evaluate(rows) == 24
        await page.evaluate(
            "const box = document.querySelector('input[type=search]'); box.value = '请给出最后到达者';"
            "box.dispatchEvent(new Event('input'))"
        )
        left = await page.evaluate(rows)
        assert 0 < left < 24
        await page.evaluate("box.value = 'test-en-128-0000'; box.dispatchEvent(new Event('input'))")
        assert await page.evaluate(rows) == 1
        shown = "[...document.querySelectorAll('.entry.fold')].filter(entry => entry.checkVisibility()).length"
        assert await page.evaluate(shown) == 0
        await page.evaluate(
            "const row = [...document.querySelectorAll('tr.item')].find(row => row.checkVisibility());"
            "row.querySelector('details').open = true; row.querySelector('details details').open = true"
        )
        assert await page.evaluate(shown) >= 2
        assert page.complaints == []
        PICTURES.mkdir(parents=True, exist_ok=True)
        await page.picture(PICTURES / "eval-report.png", width=1160, height=1000)
        await page.evaluate("row.querySelector('.entry.fold').scrollIntoView({block: 'center'})")
        await page.picture(PICTURES / "eval-trajectory.png", width=1160, height=800)
    for name in ("eval-report", "eval-trajectory"):
        with Image.open(PICTURES / f"{name}.png") as picture:
            assert len(picture.convert("RGB").getcolors(1 << 24) or ()) > 50, "the picture is blank"


def test_the_command_plays_scout(gateway: Gateway, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PINNACE_TOOLS_TOKEN", TOKEN)
    with serving(Oracle(read_tasks(DATA)), context=16384) as model:
        done = pinnace("scout", "--base-url", model.url, "--model", "scripted", "--tokenizer", tiny, "--tools",
                       gateway.url, "--split", "short", "--limit", 4, "-k", 2, "--max-tokens", 256, "-o",
                       tmp_path)  # fmt: skip
        assert done.exit_code == 0, done.output
        assert "4 × 2" in done.output
        assert "100.0" in done.output
        assert not [line for line in done.output.splitlines() if "not pinned" in line]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"--tools": "none"}, "needs the tools search, open, find"),
        ({"--tools": "http://127.0.0.1:9"}, "can't be reached"),
        ({"token": "wrong"}, "check the address and the token"),
        ({"--tools": "bare"}, "add its server"),
        ({"--tools": "seed 7"}, "serves another world than the questions are about"),
        ({"--revision": "main"}, "has no revisions"),
        ({"--split": "tset"}, "use test, short, long, validation, train"),
        ({"--data": "broken"}, "test.jsonl.gz: "),
        ({"--data": "other"}, "no field 'hops'"),
    ],
    ids=lambda each: str(each) if isinstance(each, dict) else "",
)
def test_a_mistake_is_one_line_before_the_model_is_asked(
    own: Lab, gateway: Gateway, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any],
    told: str
) -> None:  # fmt: skip
    monkeypatch.setenv("PINNACE_TOOLS_TOKEN", change.pop("token", TOKEN))
    other = gzip.compress(b'{"id": "a", "question": "q", "answer": "x"}')
    for name, body in (("broken", other[:12]), ("other", other)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "test.jsonl.gz").write_bytes(body)
    if "--data" in change:
        change = {"--data": tmp_path / change["--data"]}
    if change.get("--tools") == "bare":
        bare = own.gateway({"servers": [server("plain", own.backend())]})
        bare.wait_tools("add")
        change = {"--tools": bare.url}
    if change.get("--tools") == "seed 7":
        other_world = own.gateway({"servers": [server("world", serve_world(own, Settings(seed=7)))]})
        other_world.wait_tools("open", "search", "find")
        change = {"--tools": other_world.url}
    with serving(Oracle({}), context=16384) as model:
        options = {"--base-url": model.url, "--tokenizer": tiny, "--tools": gateway.url, "--max-tokens": 256,
                   "-o": tmp_path / "out", **change}  # fmt: skip
        done = pinnace("scout", *(part for pair in options.items() for part in pair))
        assert done.exit_code == 1, done.output
        assert told in done.output.replace("\n", "")
        assert "Traceback" not in done.output
        assert not [each for each in model.requests if len(each["messages"]) > 1]


@pytest.mark.slow
async def test_a_wanderer_answers_nothing(gateway: Gateway, counter: ModelCounter, tmp_path: Path) -> None:
    loaded = load(find("scout"))
    loaded = replace(loaded, items=tuple(item for item in loaded.items if int(item.groups["hops"]) == 4))
    done = await play(Wanderer(), loaded, gateway, counter, tmp_path, 16384)
    assert done.summary.score is not None
    assert done.summary.unfinished == 0
    assert done.summary.score.value == 0
