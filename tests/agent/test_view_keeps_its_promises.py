"""The view is a pure function of the log; what it promises holds for any log and any policy."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pinnace.agent import Budget, ContextFull, EventLog, ModelCounter, Policy, View, shipped, view
from pinnace.agent.events import Began, Call, Event, Folded, Nudged, Refined, Replied, Turned, Usage, decode, encode
from pinnace.agent.policy import FoldRule, KeepLast, RefineRule

SMALL = {
    "none": Policy(name="none", overflow="answer"),
    "truncate": Policy(name="truncate", result_tokens=200),
    "keep-last-k": Policy(name="keep-last-k", keep_last=KeepLast(results=2)),
    "keep-last-k-in-steps": Policy(name="k", keep_last=KeepLast(results=2, every=3), result_tokens=300),
    "refine": Policy(name="refine", refine=RefineRule(over_tokens=100), result_tokens=400),
    "fold": Policy(name="fold", fold=FoldRule(at_percent=80)),
    "discard-all": Policy(name="discard", fold=FoldRule(at_percent=80, mode="discard")),
    "refine-fold": Policy(name="both", refine=RefineRule(over_tokens=100), fold=FoldRule(at_percent=80)),
}
TOOL: dict[str, Any] = {
    "type": "function",
    "function": {"name": "search", "description": "Searches.", "parameters": {"type": "object", "properties": {}}},
}
_WORDS = ["the", "boat", "ship", "scouts", "ahead", "42", "東京", "naïve", "\n", "{}", "search", "a-b", "😀", "  "]


def prose(seed: int, words: int) -> str:
    dice = random.Random(seed)
    return " ".join(dice.choice(_WORDS) for _ in range(words))


@st.composite
def logs(draw: st.DrawFn, most_steps: int = 12) -> list[Event]:
    events: list[Event] = [Began(question="Where is the boat?", system="You scout.", tools=(TOOL,))]
    for number in range(draw(st.integers(0, most_steps))):
        seed = draw(st.integers(0, 1_000))
        calls = tuple(
            Call(id=f"r{number}-{index}", name="search", arguments={"query": prose(seed + index, 3)})
            for index in range(draw(st.integers(0, 3)))
        )
        content = prose(seed, draw(st.sampled_from([0, 5, 60])))
        reasoning = draw(st.sampled_from([None, "short", prose(seed, 80)]))
        events.append(Turned(content=content, reasoning=reasoning, calls=calls, usage=Usage(prompt=1)))
        for call in calls:
            text = prose(seed, draw(st.sampled_from([1, 40, 400])))
            events.append(Replied(call=call.id, name="search", outcome="ok", text=text))
            if len(text) > 300 and draw(st.booleans()):
                events.append(Refined(call=call.id, text=text[:100], spans=((0, 100),)))
        if not calls or draw(st.booleans()):
            events.append(Nudged(reason="no_answer", text="Go on."))
        if draw(st.integers(0, 5)) == 0:
            border = max(index for index, event in enumerate(events) if isinstance(event, Turned))
            events.append(Folded(before=border, text="[Notes] the boat was seen at 42"))
    return events


def complete(events: list[Event]) -> list[int]:
    """Lengths of the log at which the loop would look at it: whenever a model turn is next."""
    ends = [index for index, event in enumerate(events) if isinstance(event, Turned)]
    return [*ends[1:], len(events)]


def check_pairs(messages: list[dict[str, Any]]) -> None:
    waiting: list[str] = []
    for message in messages:
        if message["role"] == "tool":
            assert message["tool_call_id"] == waiting.pop(0), "a result without its call before it"
        else:
            assert not waiting, "a call without its result after it"
            waiting = [call["id"] for call in message.get("tool_calls", ())]
    assert not waiting


@pytest.mark.parametrize("policy", SMALL.values(), ids=SMALL)
@given(events=logs(), context=st.integers(700, 4000))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_must_survive_survives_and_it_fits(
    counter: ModelCounter, policy: Policy, events: list[Event], context: int
) -> None:
    budget = Budget(context, 100)
    shown = view(events, policy, counter, budget)
    assert shown.messages[0] == {"role": "system", "content": "You scout."}
    assert shown.messages[1]["content"].startswith("Where is the boat?")
    check_pairs(shown.messages)
    assert shown.tokens <= budget.limit
    assert counter.prompt(shown.messages, [TOOL]) <= shown.tokens, "the estimate is not an upper one"
    turns = [event for event in events if isinstance(event, Turned)]
    if turns:
        said = [message for message in shown.messages if message["role"] == "assistant"][-1]
        assert [call["id"] for call in said.get("tool_calls", ())] == [call.id for call in turns[-1].calls]
        assert shown.squeezed or said["content"] == turns[-1].content
        last = [message["content"] for message in shown.messages if message.get("tool_call_id", "x").startswith(
            tuple(call.id for call in turns[-1].calls) or ("none",))]  # fmt: skip
        assert len(last) == len(turns[-1].calls)
        assert not any("not shown any more" in content for content in last), "a result of the last step is hidden"
    again = view([decode(encode(event)) for event in events], policy, counter, budget)
    assert again == shown


@pytest.mark.parametrize("policy", SMALL.values(), ids=SMALL)
@given(events=logs(), missing=st.integers(-3, 120))
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_it_fits_to_the_token(counter: ModelCounter, policy: Policy, events: list[Event], missing: int) -> None:
    whole = view(events, policy, counter, Budget(10**6, 100))
    budget = Budget(max(700, whole.full_tokens - missing + 100), 100)
    shown = view(events, policy, counter, budget)
    assert shown.tokens <= budget.limit
    assert shown.overflow == (whole.full_tokens > budget.limit)


@pytest.mark.parametrize("policy", SMALL.values(), ids=SMALL)
@given(events=logs(), context=st.integers(900, 3000))
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_between_two_epochs_each_view_begins_with_the_one_before(
    counter: ModelCounter, policy: Policy, events: list[Event], context: int
) -> None:
    last: View | None = None
    for length in complete(events):
        shown = view(events[:length], policy, counter, Budget(context, 100))
        if last is not None and last.epoch == shown.epoch:
            assert shown.messages[: len(last.messages)] == last.messages
        last = shown


@pytest.mark.parametrize("name", ["fold", "discard-all", "refine-fold"])
def test_a_fold_replaces_what_came_before_and_keeps_the_last_step(counter: ModelCounter, name: str) -> None:
    events: list[Event] = [Began(question="Q", tools=(TOOL,))]
    for number in range(6):
        call = Call(id=f"r{number}-0", name="search", arguments={"query": str(number)})
        events += [Turned(content=f"step {number}", calls=(call,)), Replied(call=call.id, name="search", outcome="ok",
                                                                            text=prose(number, 150))]  # fmt: skip
    budget = Budget(1500, 100)
    due = view(events, SMALL[name], counter, budget).fold_before
    assert due == 11, "the last step begins at event 11"
    shown = view([*events, Folded(before=due, text="[Notes] N")], SMALL[name], counter, budget)
    assert [message["role"] for message in shown.messages] == ["user", "assistant", "tool"]
    assert "[Notes] N" in shown.messages[0]["content"]
    assert shown.fold_before is None


def test_a_question_that_does_not_fit_is_refused_with_the_remedy(counter: ModelCounter) -> None:
    with pytest.raises(ContextFull, match="raise the server's context"):
        view([Began(question=prose(1, 3000))], SMALL["none"], counter, Budget(1000, 100))


def test_a_server_that_counts_more_is_believed(counter: ModelCounter) -> None:
    call = Call(id="r0-0", name="search", arguments={})
    events: list[Event] = [
        Began(question="Q", tools=(TOOL,)),
        Turned(calls=(call,), usage=Usage(prompt=500), view_tokens=300),
        Replied(call="r0-0", name="search", outcome="ok", text=prose(3, 2000)),
    ]
    assert view(events, SMALL["none"], counter, Budget(1500, 100)).tokens <= 1200


def test_the_last_results_stay_and_older_ones_can_be_called_back(counter: ModelCounter) -> None:
    events: list[Event] = [Began(question="Q", tools=(TOOL,))]
    for number in range(5):
        call = Call(id=f"r{number}-0", name="search", arguments={})
        events += [Turned(calls=(call,)), Replied(call=call.id, name="search", outcome="ok", text=f"result {number}")]
    shown = view(events, SMALL["keep-last-k"], counter, Budget(4000, 100))
    results = [message["content"] for message in shown.messages if message["role"] == "tool"]
    assert results[3:] == ["result 3", "result 4"]
    assert all(f"recall(id='r{number}-0')" in results[number] for number in range(3))


def test_no_result_of_the_last_step_is_hidden_however_many_it_has(counter: ModelCounter) -> None:
    calls = tuple(Call(id=f"r0-{index}", name="search", arguments={}) for index in range(4))
    events: list[Event] = [Began(question="Q", tools=(TOOL,)), Turned(calls=calls)]
    events += [Replied(call=call.id, name="search", outcome="ok", text=f"result {call.id}") for call in calls]
    shown = view(events, SMALL["keep-last-k"], counter, Budget(4000, 100))
    assert [message["content"] for message in shown.messages[2:]] == [f"result {call.id}" for call in calls]


def test_a_cut_result_says_how_to_see_the_rest(counter: ModelCounter) -> None:
    text = prose(5, 3000)
    call = Call(id="r0-0", name="search", arguments={})
    events: list[Event] = [
        Began(question="Q", tools=(TOOL,)),
        Turned(calls=(call,)),
        Replied(call="r0-0", name="search", outcome="ok", text=text),
    ]
    shown = view(events, SMALL["truncate"], counter, Budget(4000, 100)).messages[-1]["content"]
    head, _, rest = shown.partition("\n[… ")
    note, _, tail = rest.partition(" …]\n")
    assert text.startswith(head)
    assert text.endswith(tail)
    assert (
        note
        == f"{len(text) - len(head) - len(tail)} characters are not shown; \
recall(id='r0-0', start={len(head)}) shows them"
    )
    assert counter.text(shown) <= 200 + 4


def test_all_seven_policies_are_shipped_and_differ() -> None:
    assert set(shipped()) == {"none", "truncate", "keep-last-k", "refine", "fold", "discard-all", "refine-fold"}
    assert len({policy.digest for policy in shipped().values()}) == 7


def test_a_log_goes_through_json_and_a_torn_last_line_is_left_out() -> None:
    from pinnace.agent import DamagedLog, read_events

    events: list[Event] = [Began(question="東京?"), Turned(content="x"), Nudged(reason="cut", text="y")]
    content = EventLog(events).dump()
    assert read_events(content) == events
    assert read_events(content[:-5]) == events[:2]
    with pytest.raises(DamagedLog, match="line 2"):
        read_events(content.replace(b'"turned"', b'"burned"'))
