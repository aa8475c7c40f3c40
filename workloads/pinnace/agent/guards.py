"""When a trajectory must stop, and why: pure functions of the log."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from .events import Termination
from .steps import Step, Story
from .tools import INFRASTRUCTURE

_WORD = re.compile(r"\w+")
_SHINGLE = 3
_LOOK_BACK = 8


class Limits(BaseModel):
    """Bounds of one trajectory.

    Attributes:
        turns: model turns, the forced answer not counted.
        tokens: tokens that the model may write in all; None: no bound.
        wall_seconds: active seconds.
        answer_seconds: seconds for the forced answer after a limit was reached.
        repeats: turns that repeat an earlier one (exactly or nearly) before the agent must answer.
        similar_percent: from which overlap of word triples on two turns are the same.
        duplicate_queries: calls with the very arguments of an earlier call before the agent must answer.
        malformed: turns in a row that can't be parsed.
        no_answer: turns in a row with neither calls nor an answer.
        infrastructure: calls in a row that failed for reasons of the infrastructure.
        parallel: calls of one turn that run at once.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True)

    turns: int = Field(200, ge=1)
    tokens: int | None = Field(None, ge=1)
    wall_seconds: float = Field(9_000, gt=0)
    answer_seconds: float = Field(120, gt=0)
    repeats: int = Field(4, ge=1)
    similar_percent: int = Field(95, ge=50, le=100)
    duplicate_queries: int = Field(8, ge=1)
    malformed: int = Field(4, ge=1)
    no_answer: int = Field(3, ge=1)
    infrastructure: int = Field(8, ge=1)
    parallel: int = Field(8, ge=1)


@dataclass(frozen=True)
class Stop:
    """A limit was reached. `answer`: the agent is asked for its final answer first."""

    reason: Termination
    detail: str
    answer: bool = True


def stop(story: Story, limits: Limits, elapsed: float) -> Stop | None:  # noqa: PLR0911 - a table of limits
    """The first limit that the log has reached, or None. `elapsed` is in active seconds."""
    steps = story.steps
    if elapsed >= limits.wall_seconds:
        return Stop("wall_clock", f"{elapsed:.0f} of {limits.wall_seconds:.0f} seconds")
    if _in_a_row(steps, _failed_outside) >= limits.infrastructure:
        return Stop("tool_infrastructure", f"{limits.infrastructure} calls in a row failed outside the tools", False)
    if _in_a_row(steps, _malformed) >= limits.malformed:
        return Stop("malformed", f"{limits.malformed} turns in a row had malformed calls")
    if _in_a_row(steps, _empty) >= limits.no_answer:
        return Stop("no_answer", f"{limits.no_answer} turns in a row had neither calls nor an answer", False)
    if (repeated := repeats(story, limits)) >= limits.repeats:
        return Stop("repeats", f"{repeated} turns repeated earlier ones")
    if (duplicates := len(duplicate_calls(story))) >= limits.duplicate_queries:
        return Stop("duplicate_queries", f"{duplicates} calls had been made before")
    if len(steps) >= limits.turns:
        return Stop("turns", f"{len(steps)} turns")
    written = sum(step.turn.usage.completion for step in steps)
    if limits.tokens is not None and written >= limits.tokens:
        return Stop("tokens", f"{written} tokens written")
    return None


def duplicate_calls(story: Story) -> frozenset[str]:
    """Ids of calls that repeat an earlier one which had a result of its own; asking again after a failure is fair."""
    seen: set[str] = set()
    again: set[str] = set()
    for step in story.steps:
        for call in step.turn.calls:
            reply = step.replies.get(call.id)
            if call.problem is not None or call.name == "recall":
                continue
            key = call.key
            if key in seen:
                again.add(call.id)
            if reply is not None and reply.outcome not in INFRASTRUCTURE:
                seen.add(key)
    return frozenset(again)


def repeats(story: Story, limits: Limits) -> int:
    """How many of the last turns in a row say what one of the eight before them said; not after a failure outside."""
    count = 0
    for index in range(len(story.steps) - 1, 0, -1):
        turn = story.steps[index].turn
        earlier = [step for step in story.steps[max(0, index - _LOOK_BACK) : index] if not _lacks_a_result(step)]
        said = _said(story.steps[index])
        if not said or not any(_same(said, _said(step), limits.similar_percent) for step in earlier):
            break
        if turn.calls and {call.key for call in turn.calls}.isdisjoint(
            call.key for step in earlier for call in step.turn.calls
        ):
            break  # the same words around a new call are progress
        count += 1
    return count


def _said(step: Step) -> str:
    turn = step.turn
    return "\n".join([turn.content, *(call.key for call in turn.calls)]).strip()


def _same(one: str, other: str, percent: int) -> bool:
    if one == other:
        return True
    # Most turns differ in length by more than the share that may differ: no need to look at their words.
    if min(len(one), len(other)) * 100 < max(len(one), len(other)) * (2 * percent - 100):
        return False
    mine, theirs = _shingles(one), _shingles(other)
    union = len(mine | theirs)
    return union > 0 and len(mine & theirs) * 100 >= union * percent


def _shingles(text: str) -> set[tuple[str, ...]]:
    words = _WORD.findall(text.casefold())
    return {tuple(words[start : start + _SHINGLE]) for start in range(max(1, len(words) - _SHINGLE + 1))}


def _in_a_row(steps: list[Step], matches: Callable[[Step], int]) -> int:
    count = 0
    for step in reversed(steps):
        found = matches(step)
        if not found:
            break
        count += int(found)
    return count


def _malformed(step: Step) -> bool:
    return bool(step.turn.calls) and all(call.problem is not None for call in step.turn.calls)


def _empty(step: Step) -> bool:
    return not step.turn.calls and step.turn.forced is None


def _lacks_a_result(step: Step) -> bool:
    return any(reply.outcome in INFRASTRUCTURE for reply in step.replies.values())


def _failed_outside(step: Step) -> int:
    """Calls of a step, if every one of them failed outside the tools; else 0."""
    outcomes = [reply.outcome for reply in step.replies.values()]
    return len(outcomes) if outcomes and all(outcome in INFRASTRUCTURE for outcome in outcomes) else 0
