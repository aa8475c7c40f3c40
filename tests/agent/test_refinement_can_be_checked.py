"""Refinement and folding by a second model: evidence has offsets, failures are flagged, nothing is paid twice."""

from __future__ import annotations

import itertools
import json
import random
from typing import Any

import pytest
from pinnace.agent import EventLog, ModelCounter, Policy, summarise
from pinnace.agent.events import Folded, Refined, Replied, Turned
from pinnace.agent.evidence import locate, read_object
from pinnace.agent.policy import FoldRule, KeepLast, RefineRule

from e2e.faults.model import Answer, Request, Trouble, scripted_model

from .conftest import Bench, Functions, play

REFINE = Policy(name="refine", refine=RefineRule(over_tokens=100, input_tokens=3000))
FACT = "The pinnace   Swift left\nPlymouth in 1577"
PAGE = "Advertisement. " * 60 + FACT + " with nine men. " + "Cookies? " * 60


def reader(answer: dict[str, Any] | str | Trouble) -> Any:
    if isinstance(answer, Trouble):
        return lambda _: answer
    return lambda _: Answer(answer if isinstance(answer, str) else json.dumps(answer))


def agent_script(calls: int = 1) -> Any:
    """Asks for the page `calls` times with the same purpose, then answers."""
    numbers = itertools.count()
    ask = ("fetch", {"url": "https://a.example", "purpose": "When did it leave?"})
    return lambda _: Answer(calls=[ask]) if next(numbers) < calls else Answer("<answer>1577</answer>")


def fetch() -> Functions:
    return Functions({"fetch": lambda url, purpose: PAGE})


async def test_evidence_points_into_the_raw_page(counter: ModelCounter) -> None:
    good = {
        "evidence": ["The pinnace Swift left Plymouth in 1577", "made up by the reader"],
        "summary": "It left in 1577.",
    }
    async with scripted_model(agent_script()) as model, scripted_model(reader(good)) as second:
        log = EventLog()
        await play(Bench(model, counter, second).agent(REFINE), fetch(), log)
        refined = next(event for event in log if isinstance(event, Refined))
        raw = next(event.text for event in log if isinstance(event, Replied))
        assert [raw[start:end] for start, end in refined.spans] == [FACT]
        assert refined.unsupported == 1
        assert refined.fallback is None
        shown = model.requests[1]["messages"][-1]["content"]
        start, end = refined.spans[0]
        assert f"[{start}:{end}]" in shown
        assert "Advertisement" not in shown
        assert "made up" not in shown
        asked = second.requests[0]["messages"][0]["content"]
        assert "When did it leave?" in asked


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ("I can't do that", "can't be used"),
        ({"evidence": ["invented"], "summary": "s"}, "none of its quotes"),
        ({"evidence": "x", "summary": 3}, "must be a list"),
        (Trouble(400, "no"), "ModelRefused"),
        (Trouble(503, "down"), "ModelUnavailable"),
        (Trouble(400, "maximum context length is 10 tokens"), "too long"),
    ],
)
async def test_a_reader_that_fails_leads_to_a_cut_that_is_flagged(counter: ModelCounter, answer: Any, why: str) -> None:
    async with scripted_model(agent_script()) as model, scripted_model(reader(answer)) as second:
        log = EventLog()
        ended = await play(Bench(model, counter, second).agent(REFINE), fetch(), log)
        refined = next(event for event in log if isinstance(event, Refined))
        assert ended.answer == "1577"
        assert why in (refined.fallback or "")
        assert PAGE.startswith(refined.text[:50])
        assert counter.text(refined.text) < counter.text(PAGE)
        assert summarise(log).fallbacks == 1


async def test_the_same_page_for_the_same_goal_is_read_once(counter: ModelCounter) -> None:
    good = {"evidence": [FACT], "summary": "1577"}
    async with scripted_model(agent_script(3)) as model, scripted_model(reader(good)) as second:
        log = EventLog()
        await play(Bench(model, counter, second).agent(REFINE), fetch(), log)
        assert len(second.requests) == 1
        assert [event.cached for event in log if isinstance(event, Refined)] == [False, True, True]


async def test_short_results_and_errors_are_left_as_they_are(counter: ModelCounter) -> None:
    async with scripted_model(agent_script()) as model, scripted_model(reader(Trouble(500))) as second:
        log = EventLog()
        await play(Bench(model, counter, second).agent(REFINE), Functions({"fetch": lambda url, purpose: "short"}), log)
        assert not second.requests
        assert model.requests[1]["messages"][-1]["content"] == "short"


def explorer(turns: int) -> Any:
    """A new query each turn; knows how far it is by what the harness shows it, and asks for the first result again."""
    numbers = itertools.count()

    def script(request: Request) -> Answer:
        number = next(numbers)
        if number >= turns:
            last = request["messages"][-1]["content"]
            return Answer(f"<answer>{last[:40]}</answer>")
        if number == turns - 1:
            return Answer("Back to the first result.", calls=[("recall", {"id": "r0-0"})])
        return Answer(f"Looking at {number}.", calls=[("search", {"query": f"topic {number}"})])

    return script


def notes(request: Request) -> Answer:
    source = "r0-0" if "r0-0" in request["messages"][0]["content"] else "r9999-0"
    facts = [{"text": "topic 0 is about boats", "source": source}, {"text": "invented", "source": "nowhere"}]
    return Answer(json.dumps({"facts": facts, "dead_ends": ["topic 1"], "next_step": "look further"}))


@pytest.mark.parametrize("mode", ["summary", "discard"])
async def test_a_hundred_and_twenty_turns_stay_inside_the_servers_context(counter: ModelCounter, mode: Any) -> None:
    policy = Policy(name="fold", fold=FoldRule(at_percent=90, mode=mode, output_tokens=300))
    dice = random.Random(1)
    pages = {
        f"topic {number}": " ".join(dice.choices(["sea", "wind", "sail", "rope", "port"], k=120))
        for number in range(130)
    }
    async with scripted_model(explorer(121), counter=counter, context=4000) as model, scripted_model(notes) as second:
        log, tools = EventLog(), Functions({"search": lambda query: f"{query}: {pages[query]}"})
        ended = await play(Bench(model, counter, second).agent(policy, context=4000), tools, log)
        assert ended.termination == "answered"
        assert ended.answer == f"topic 0: {pages['topic 0']}"[:40], "what was folded could not be read again"
        turns = [event for event in log if isinstance(event, Turned)]
        assert len(turns) == 122
        folds = [event for event in log if isinstance(event, Folded)]
        assert len(folds) > 3
        if mode == "summary":
            assert all(event.fallback is None and event.unsupported >= 1 for event in folds)
            assert "source not found" in folds[0].text
            assert "topic 0 is about boats (r0-0)" in folds[0].text
        # Each view fits, and is counted from above, by at most a few per cent.
        assert max(model.prompts) + 256 <= 4000
        for turn, prompt in zip(turns, model.prompts, strict=True):
            assert prompt <= turn.view_tokens <= prompt * 1.15 + 40
        # Nothing but a fold breaks the server's prefix cache.
        extends = [
            other[: len(one)] == one for one, other in itertools.pairwise(each["messages"] for each in model.requests)
        ]
        assert extends.count(False) == len(folds)


@pytest.mark.parametrize("answer", [Answer("no JSON"), Trouble(503), Answer("{}")])
async def test_a_fold_without_a_second_model_is_a_list_of_what_was_done(counter: ModelCounter, answer: Any) -> None:
    policy = Policy(name="fold", fold=FoldRule(at_percent=60, output_tokens=300))
    async with (
        scripted_model(explorer(12), counter=counter, context=2000) as model,
        scripted_model(lambda _: answer) as second,
    ):
        log, tools = EventLog(), Functions({"search": lambda query: f"{query} " * 60})
        ended = await play(Bench(model, counter, second).agent(policy, context=2000), tools, log)
        assert ended.termination == "answered"
        fold = next(event for event in log if isinstance(event, Folded))
        assert fold.fallback
        assert "r0-0: search(query: topic 0), ok" in fold.text


async def test_a_result_out_of_view_is_recalled_by_parts(counter: ModelCounter) -> None:
    text = "".join(f"{number:05d} " for number in range(2000))
    calls = iter(
        [("fetch", {}), ("recall", {"id": "r0-0"}), ("recall", {"id": "r0-0", "start": 6000}), ("recall", {"id": "r7"})]
    )
    policy = Policy(name="k", keep_last=KeepLast(results=1))
    async with scripted_model(
        lambda _: Answer(calls=[call]) if (call := next(calls, None)) else Answer("<answer>x</answer>")
    ) as model:
        log = EventLog()
        await play(Bench(model, counter).agent(policy, context=16000), Functions({"fetch": lambda: text}), log)
        replies = [event for event in log if isinstance(event, Replied)]
        assert replies[1].text.startswith(text[:6000])
        assert "start=6000" in replies[1].text
        assert replies[2].text == text[6000:12000]
        assert replies[3].outcome == "invalid_arguments"


@pytest.mark.parametrize(
    ("quote", "found"),
    [
        ("left Plymouth in 1577", "left\nPlymouth in 1577"),
        ("pinnace Swift…", "pinnace   Swift"),
        ("the pinnace", None),
        ("", None),
        ("Plymouth (1577)", None),
    ],
)
def test_a_quote_is_found_only_where_it_stands(quote: str, found: str | None) -> None:
    span = locate(quote, PAGE)
    assert (PAGE[span.start : span.end] if span else None) == found


@pytest.mark.parametrize(
    "text", ['{"a": 1}', '```json\n{"a": 1}\n```', 'Sure:\n{"a": 1} done', '<think>{"b": 2}</think>{"a": 1}']
)
def test_an_object_is_read_from_what_models_write_around_it(text: str) -> None:
    assert read_object(text) == {"a": 1}
