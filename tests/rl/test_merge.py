"""Trained tokens are sampled tokens, each once, each after exactly what it was sampled after."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pinnace.rl.capture.merge import Call, History, Merge, common_prefix
from pinnace.rl.types import InvalidTurn, Segment


def call(prompt: list[int], output: list[int], *, logprob: float = -1.0, version: int = 0) -> Call:
    return Call(
        prompt_ids=tuple(prompt),
        output_ids=tuple(output),
        behaviour_logprobs=tuple(logprob for _ in output),
        policy_versions=tuple(version for _ in output),
    )


def trained(segments: tuple[Segment, ...]) -> list[list[int]]:
    return [[token for turn in part.turns for token in part.ids[turn.start : turn.end]] for part in segments]


@dataclass(frozen=True)
class Case:
    """Calls of one trajectory, how each joins, the segments' ids, and which are trained."""

    name: str
    calls: list[Call]
    merges: list[Merge]
    ids: list[list[int]]
    trained: list[list[int]]


C, R, F = Merge.CLEAN, Merge.REALIGN, Merge.FORK
CASES = [
    Case("one turn", [call([1, 2], [8, 9])], [F], [[1, 2, 8, 9]], [[8, 9]]),
    Case(
        "a prompt that extends everything so far",
        [call([1, 2], [8, 9]), call([1, 2, 8, 9, 3], [7])],
        [F, C], [[1, 2, 8, 9, 3, 7]], [[8, 9, 7]],
    ),
    Case(
        "an answer cut by its length: the template closes it",
        [call([1, 2], [8]), call([1, 2, 8, 99, 3], [7])],
        [F, C], [[1, 2, 8, 99, 3, 7]], [[8, 7]],
    ),
    Case(
        "the last tokens come back in another spelling",
        [call([1, 2], [8, 8, 9]), call([1, 2, 8, 5, 5, 3], [7])],
        [F, R], [[1, 2, 8, 5, 5, 3, 7]], [[8, 7]],
    ),
    Case(
        "reasoning was dropped from the history",
        [call([1, 2], [50, 51, 8, 9]), call([1, 2, 8, 9, 3], [7])],
        [F, F], [[1, 2, 50, 51, 8, 9], [1, 2, 8, 9, 3, 7]], [[50, 51, 8, 9], [7]],
    ),
    Case(
        "a sub-agent in between",
        [call([1, 2], [8]), call([40, 41], [9]), call([40, 41, 9, 42], [9]), call([1, 2, 8, 3], [7])],
        [F, F, C, C], [[1, 2, 8, 3, 7], [40, 41, 9, 42, 9]], [[8, 7], [9, 9]],
    ),
    Case(
        "two sub-agents with one system prompt and short answers",
        [call([1, 2], [8]), call([1, 3], [9])],
        [F, F], [[1, 2, 8], [1, 3, 9]], [[8], [9]],
    ),
    Case(
        "a folded context",
        [call([1, 2], [8]), call([1, 2, 8, 3], [7]), call([1, 60], [6]), call([1, 60, 6, 4], [5])],
        [F, C, F, C], [[1, 2, 8, 3, 7], [1, 60, 6, 4, 5]], [[8, 7], [6, 5]],
    ),
    Case(
        "two answers to one prompt, of which the agent goes on with the second",
        [call([1, 2], [8, 9]), call([1, 2], [7, 9]), call([1, 2, 7, 9, 3], [6])],
        [F, F, C], [[1, 2, 8, 9], [1, 2, 7, 9, 3, 6]], [[8, 9], [7, 9, 6]],
    ),
    Case(
        "a tool result that changed after the model had answered to it",
        [call([1, 2], [8]), call([1, 2, 8, 3], [7]), call([1, 2, 8, 4, 7, 5], [6])],
        [F, C, F], [[1, 2, 8, 3, 7], [1, 2, 8, 4, 7, 5, 6]], [[8, 7], [6]],
    ),
    Case("an answer of nothing", [call([1, 2], []), call([1, 2, 3], [7])], [F, C], [[1, 2, 3, 7]], [[7]]),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_calls_join(case: Case) -> None:
    history = History()
    assert [history.add(one) for one in case.calls] == case.merges
    assert [list(part.ids) for part in history.segments] == case.ids
    assert trained(history.segments) == case.trained


def test_a_respelling_that_would_cost_more_than_allowed_forks() -> None:
    history = History(realign_tokens=1)
    history.add(call([1, 2], [8, 8, 9]))
    assert history.add(call([1, 2, 8, 5, 3], [7])) is Merge.FORK
    assert trained(history.segments) == [[8, 8, 9], [7]]


def test_realigned_tokens_are_counted() -> None:
    history = History()
    history.add(call([1], [8, 8, 9]))
    history.add(call([1, 8, 5], [7]))
    assert history.counts == {"fork": 1, "realign": 1, "realigned_tokens": 2}


def test_versions_and_log_probs_stay_with_their_tokens() -> None:
    history = History()
    history.add(call([1], [8, 9], logprob=-0.5, version=3))
    history.add(call([1, 8, 9, 2], [7], logprob=-0.25, version=4))
    (segment,) = history.segments
    assert [turn.policy_versions for turn in segment.turns] == [(3, 3), (4,)]
    assert [turn.behaviour_logprobs for turn in segment.turns] == [(-0.5, -0.5), (-0.25,)]
    history.credit(1, 0.75)
    assert [turn.reward for turn in history.segments[0].turns] == [None, 0.75]


@pytest.mark.parametrize("logprobs", [(float("nan"),), (-1.0, -1.0), (1.5,)])
def test_a_broken_answer_is_refused_and_adds_nothing(logprobs: tuple[float, ...]) -> None:
    history = History()
    with pytest.raises(InvalidTurn):
        history.add(Call(prompt_ids=(1,), output_ids=(2,), behaviour_logprobs=logprobs, policy_versions=(0,)))
    assert history.segments == ()


@st.composite
def conversations(draw: st.DrawFn) -> list[Call]:
    """What clients do to histories: extend, respell the tail, drop from the middle, retry, fold, ask a sub-agent.

    Each output token has a log-prob of its own, so that it can be told from all others.
    """
    dice = draw(st.randoms(use_true_random=False))
    made: list[Call] = []
    for number in range(draw(st.integers(1, 8))):
        kind = draw(st.sampled_from(["extend", "extend", "respell", "drop", "retry", "fresh"]))
        old = draw(st.sampled_from(made)) if made else None
        if old is None or kind == "fresh":
            prompt = [dice.randrange(4) for _ in range(dice.randrange(1, 6))]
        else:
            whole = list(old.prompt_ids + old.output_ids)
            if kind == "respell":
                whole[-min(len(whole), dice.randrange(1, 4)) :] = [dice.randrange(4) for _ in range(dice.randrange(3))]
            elif kind == "drop":
                at = dice.randrange(len(whole))
                whole[at : at + dice.randrange(1, 4)] = []
            elif kind == "retry":
                whole = list(old.prompt_ids)
            prompt = whole + [dice.randrange(4) for _ in range(dice.randrange(3))] or [0]
        output = tuple(dice.randrange(4) for _ in range(dice.randrange(6)))
        made.append(
            Call(
                prompt_ids=tuple(prompt),
                output_ids=output,
                behaviour_logprobs=tuple(-(number + 1) - position / 100 for position in range(len(output))),
                policy_versions=tuple(number for _ in output),
            )
        )
    return made


@given(conversations(), st.integers(0, 3))
@settings(max_examples=400)
def test_every_trained_token_was_sampled_once_with_its_log_prob_after_its_prefix(calls: list[Call], slack: int) -> None:
    history = History(realign_tokens=slack)
    for one in calls:
        history.add(one)
    sampled = {
        logprob: (one.prompt_ids + one.output_ids[:position], token, one.policy_versions[position])
        for one in calls
        for position, (token, logprob) in enumerate(zip(one.output_ids, one.behaviour_logprobs, strict=True))
    }
    seen: list[float] = []
    for part in history.segments:
        for turn in part.turns:
            for at, logprob, version in zip(
                range(turn.start, turn.end), turn.behaviour_logprobs, turn.policy_versions, strict=True
            ):
                assert sampled[logprob] == (part.ids[:at], part.ids[at], version)
                seen.append(logprob)
    assert len(seen) == len(set(seen))
    assert len(seen) + history.counts["realigned_tokens"] == len(sampled)  # and nothing is lost but what is counted
    assert history.counts["clean"] + history.counts["realign"] + history.counts["fork"] == len(calls)


@given(st.lists(st.integers(0, 2), max_size=30), st.lists(st.integers(0, 2), max_size=30))
def test_common_prefix(left: list[int], right: list[int]) -> None:
    agreed = common_prefix(left, right)
    assert left[:agreed] == right[:agreed]
    assert agreed in (len(left), len(right)) or left[agreed] != right[agreed]
