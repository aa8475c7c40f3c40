"""The loop against a real HTTP server that misbehaves on demand."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from pinnace.agent import EventLog, ModelCounter, summarise
from pinnace.agent.events import Nudged, Replied, Turned
from pinnace.agent.tools import Reply

from e2e.faults.model import Answer, Request, Trouble, scripted_model

from .conftest import Bench, Functions, play

FINAL = Answer("I am sure. <answer>42</answer>")


def steps(*answers: Answer | Trouble) -> Callable[[Request], Answer | Trouble]:
    """Each answer once; the last one for ever."""
    left = iter(answers)
    last = answers[-1]
    return lambda _: next(left, last)


def search(query: str = "") -> str:
    return f"pages about {query}"


async def test_calls_run_in_parallel_and_thoughts_are_kept_apart(counter: ModelCounter) -> None:
    both = asyncio.Event()
    waiting = 0

    class Meeting(Functions):
        async def call(self, name: str, arguments: Any) -> Any:
            nonlocal waiting
            waiting += 1
            if waiting == 2:
                both.set()
            await asyncio.wait_for(both.wait(), 10)  # neither ends before the other has begun
            return await super().call(name, arguments)

    first = Answer("", "I should search.", [("search", {"query": "a"}), ("search", {"query": "b"})])
    async with scripted_model(steps(first, FINAL)) as model:
        log, tools = EventLog(), Meeting({"search": search})
        ended = await play(Bench(model, counter).agent(), tools, log)
        assert (ended.termination, ended.answer) == ("answered", "42")
        turn = next(event for event in log if isinstance(event, Turned))
        assert (turn.content, turn.reasoning) == ("", "I should search.")
        sent = model.requests[1]["messages"]
        assert [message["content"] for message in sent if message["role"] == "tool"] == [
            "pages about a",
            "pages about b",
        ]


@pytest.mark.parametrize(
    ("dialect", "text"),
    [
        (
            "hermes",
            '<think>\nhm\n</think>\n\n<tool_call>\n{"name": "search", "arguments": {"query": "a"}}\n</tool_call>',
        ),
        ("native", '<think>hm</think><tool_call>{"name": "search", "arguments": {"query": "a"}}</tool_call>'),
        ("action", '<think>hm</think>Let me look.\nAction: search\nAction Input: {"query": "a"}\nObservation: fake'),
    ],
)
async def test_text_protocols_call_tools_too(counter: ModelCounter, dialect: str, text: str) -> None:
    async with scripted_model(steps(Answer(text), FINAL)) as model:
        tools, log = Functions({"search": search}), EventLog()
        ended = await play(Bench(model, counter).agent(dialect=dialect), tools, log)
        assert tools.calls == [("search", {"query": "a"})]
        assert ended.answer == "42"
        assert next(event.reasoning for event in log if isinstance(event, Turned)) == "hm"
        if dialect != "native":
            assert "tools" not in model.requests[0]
            assert all(message["role"] != "tool" for message in model.requests[1]["messages"])
            assert "search" in model.requests[0]["messages"][0]["content"]
            assert "pages about a" in model.requests[1]["messages"][-1]["content"]


@pytest.mark.parametrize("bad", ["{not json", "[1]", '"text"'])
async def test_a_malformed_call_is_told_and_may_be_corrected(counter: ModelCounter, bad: str) -> None:
    script = steps(Answer(calls=[("search", bad)]), Answer(calls=[("search", {"query": "a"})]), FINAL)
    async with scripted_model(script) as model:
        tools, log = Functions({"search": search}), EventLog()
        ended = await play(Bench(model, counter).agent(), tools, log)
        assert ended.termination == "answered"
        assert tools.calls == [("search", {"query": "a"})]
        told = model.requests[1]["messages"][-1]["content"]
        assert "Malformed tool call" in told
        assert summarise(log).malformed == 1


async def test_an_unknown_tool_gets_the_nearest_names(counter: ModelCounter) -> None:
    async with scripted_model(steps(Answer(calls=[("serch", {})]), FINAL)) as model:
        await play(Bench(model, counter).agent(), Functions({"search": search}))
        assert "search" in model.requests[1]["messages"][-1]["content"]


ASK = Answer(calls=[("search", {"query": "same"})])


def counting(make: Callable[[int], Answer]) -> Callable[[Request], Answer]:
    numbers = itertools.count()
    return lambda request: FINAL if request.get("tool_choice") == "none" else make(next(numbers))


@pytest.mark.parametrize(
    ("reason", "make", "limits"),
    [
        ("turns", lambda n: Answer(f"step {n}", calls=[("search", {"query": f"{n}" * 9})]), {"turns": 5}),
        ("tokens", lambda n: Answer(f"{n} " * 90, calls=[("search", {"query": f"{n}"})]), {"tokens": 120}),
        ("repeats", lambda _: Answer("I say the same thing again", calls=[("search", {"query": "x"})]), {"repeats": 3}),
        ("duplicate_queries", lambda n: Answer(f"{n} " * n * 5, calls=[("search", {"query": "x"})]),
         {"duplicate_queries": 4}),
        ("malformed", lambda n: Answer(f"{n} " * n * 5, calls=[("search", "{")]), {"malformed": 3}),
    ],
)  # fmt: skip
async def test_each_limit_has_its_reason_and_still_gets_an_answer(
    counter: ModelCounter, reason: str, make: Callable[[int], Answer], limits: dict[str, Any]
) -> None:
    async with scripted_model(counting(make)) as model:
        log = EventLog()
        ended = await play(Bench(model, counter).agent("truncate", **limits), Functions({"search": search}), log)
        assert (ended.termination, ended.forced, ended.answer) == (reason, True, "42")
        assert model.requests[-1]["tool_choice"] == "none"
        assert model.requests[-1]["tools"] == model.requests[0]["tools"], "without tools the server's prefix is lost"


async def test_nearly_the_same_turn_is_a_repetition_but_new_calls_are_progress(counter: ModelCounter) -> None:
    words = " ".join(f"word{number}" for number in range(150))
    near = counting(lambda n: Answer(f"{words} {n}", calls=[("search", {"query": "x"})]))
    async with scripted_model(near) as model:
        ended = await play(Bench(model, counter).agent("truncate", repeats=3), Functions({"search": search}))
        assert ended.termination == "repeats"
    new = counting(lambda n: Answer(words, calls=[("search", {"query": f"{n}"})]) if n < 12 else FINAL)
    async with scripted_model(new) as model:
        ended = await play(Bench(model, counter).agent("truncate", repeats=3), Functions({"search": search}))
        assert ended.termination == "answered"


async def test_the_wall_clock_interrupts_a_tool_that_hangs(counter: ModelCounter) -> None:
    class Hanging(Functions):
        async def call(self, name: str, arguments: Any) -> Any:
            await asyncio.Event().wait()

    async with scripted_model(counting(lambda _: ASK)) as model:
        log = EventLog()
        ended = await play(Bench(model, counter).agent(wall_seconds=0.3), Hanging({"search": search}), log)
        assert (ended.termination, ended.answer) == ("wall_clock", "42")
        assert [event.outcome for event in log if isinstance(event, Replied)] == ["denied"]


async def test_the_wall_clock_interrupts_a_model_that_hangs(counter: ModelCounter) -> None:
    async def hang(request: Request) -> Answer:
        if request.get("tool_choice") != "none":
            await asyncio.sleep(60)
        return FINAL

    async with scripted_model(hang) as model:
        ended = await play(Bench(model, counter).agent(wall_seconds=0.3), Functions({"search": search}))
        assert (ended.termination, ended.answer) == ("wall_clock", "42")


@pytest.mark.parametrize("outcome", ["timeout", "overloaded", "unavailable"])
async def test_failing_infrastructure_is_never_the_agents_fault(counter: ModelCounter, outcome: str) -> None:
    async with scripted_model(steps(Answer("I ask again", calls=[("search", {"query": "same"})]))) as model:
        log = EventLog()
        tools = Functions({"search": lambda query: Reply(outcome, "gone", {"server": "a"})})
        ended = await play(Bench(model, counter).agent(infrastructure=6, repeats=2), tools, log)
        summary = summarise(log)
        assert ended.termination == "tool_infrastructure"
        assert summary.not_the_agent
        assert (summary.infrastructure, summary.tool_errors, summary.duplicates) == (6, 0, 0)
        assert ended.answer is None


async def test_an_error_of_the_tool_is_the_agents_to_handle(counter: ModelCounter) -> None:
    script = steps(*[Answer(f"{n}" * n, calls=[("search", {"query": f"{n}"})]) for n in range(12)], FINAL)
    async with scripted_model(script) as model:
        log = EventLog()
        tools = Functions({"search": lambda query: Reply("tool_error", "no such page")})
        assert (await play(Bench(model, counter).agent(infrastructure=3), tools, log)).termination == "answered"
        assert summarise(log).tool_errors == 12


async def test_a_model_that_comes_back_is_waited_for(counter: ModelCounter) -> None:
    troubles = [Trouble(503), Trouble(429, headers={"Retry-After": "0"}), Trouble(drop=True), Trouble(500)]
    async with scripted_model(steps(*troubles, FINAL)) as model:
        assert (await play(Bench(model, counter).agent(), Functions({}))).answer == "42"
        assert len(model.requests) == 5


async def test_a_model_that_stays_away_is_not_the_agents_fault(counter: ModelCounter) -> None:
    async with scripted_model(steps(Trouble(503, "overloaded"))) as model:
        log = EventLog()
        ended = await play(Bench(model, counter).agent(), Functions({}), log)
        assert ended.termination == "model_unavailable"
        assert "overloaded" in ended.detail
        assert summarise(log).not_the_agent


@pytest.mark.parametrize(
    "answer", [Trouble(400, "content policy"), Answer("no", finish="content_filter"), Answer(refusal="I won't")]
)
async def test_a_refusal_is_named_so(counter: ModelCounter, answer: Answer | Trouble) -> None:
    async with scripted_model(steps(answer)) as model:
        ended = await play(Bench(model, counter).agent(), Functions({}))
        assert (ended.termination, ended.answer) == ("refused", None)
        assert len(model.requests) == 1


async def test_an_answer_in_the_wrong_form_is_asked_for_again(counter: ModelCounter) -> None:
    async with scripted_model(steps(Answer("It is 42."), FINAL)) as model:
        ended = await play(Bench(model, counter).agent(rule="tag"), Functions({}))
        assert ended.answer == "42"
        assert "<answer>" in model.requests[1]["messages"][-1]["content"]
    async with scripted_model(steps(Answer("It is 42."))) as model:
        ended = await play(Bench(model, counter).agent(rule="tag", no_answer=3), Functions({}))
        assert (ended.termination, ended.answer) == ("no_answer", None)
        assert len(model.requests) == 3


async def test_a_turn_that_was_cut_off_is_no_answer(counter: ModelCounter) -> None:
    async with scripted_model(steps(Answer("I think <answer>4", finish="length"), FINAL)) as model:
        log = EventLog()
        assert (await play(Bench(model, counter).agent(), Functions({}), log)).answer == "42"
        assert [event.reason for event in log if isinstance(event, Nudged)] == ["cut"]


async def test_without_folding_a_full_context_leads_to_an_answer(counter: ModelCounter) -> None:
    script = counting(lambda n: Answer(f"{n}", calls=[("search", {"query": f"{n}"})]))
    async with scripted_model(script, counter=counter, context=1500) as model:
        tools = Functions({"search": lambda query: f"{query} " * 150})
        ended = await play(Bench(model, counter).agent("none", context=1500), tools)
        assert (ended.termination, ended.answer, ended.forced) == ("context", "42", True)


async def test_a_server_with_less_room_than_it_says_is_met_with_shorter_prompts(counter: ModelCounter) -> None:
    script = counting(lambda n: Answer(f"{n}", calls=[("search", {"query": f"{n}"})]) if n < 12 else FINAL)
    async with scripted_model(script, counter=counter, context=1400) as model:
        tools = Functions({"search": lambda query: f"{query} " * 60})
        ended = await play(Bench(model, counter).agent("truncate", context=1500), tools)
        assert (ended.termination, ended.answer) == ("answered", "42")


Ready = Callable[[Request], Awaitable[Answer]]
