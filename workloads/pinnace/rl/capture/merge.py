"""The calls of one trajectory to segments. Tokens are never made from text here: what was sampled is what is trained.

A call's prompt can stand to what is known in three ways:

- CLEAN: it extends a segment token by token; prompt tail and output are added to it.
- REALIGN: it extends a segment but for the last few sampled tokens of its newest turn, which the client gave back in
  another spelling (a stripped space, re-serialised arguments). The segment takes the new spelling; the few tokens that
  were overwritten leave the loss, because no later token has seen them. They are counted.
- FORK: anything else starts a segment of its own: a history from which reasoning was dropped, a sub-agent, a folded
  context, a second answer to one prompt. Nothing is lost; the common prefix is stored and computed twice.

Always true: a trained token was sampled exactly once, after exactly the ids that precede it in its segment.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from pinnace.rl.types import Fault, Segment, Turn, check_tokens


class Merge(StrEnum):
    """How a call joined its trajectory."""

    CLEAN = "clean"
    REALIGN = "realign"
    FORK = "fork"


@dataclass(frozen=True, kw_only=True)
class Call:
    """What an engine was asked (`prompt_ids`) and what it sampled, with a log-prob and a policy version a token."""

    prompt_ids: tuple[int, ...]
    output_ids: tuple[int, ...]
    behaviour_logprobs: tuple[float, ...]
    policy_versions: tuple[int, ...]
    fault: Fault | None = None


class History:
    """One trajectory while it is being sampled."""

    def __init__(self, *, realign_tokens: int = 16) -> None:
        """`realign_tokens`: the most sampled tokens that REALIGN may take out of the loss (0 forks instead)."""
        self._realign_tokens = realign_tokens
        self._segments: list[Segment] = []
        self._calls = 0
        self.counts: Counter[str] = Counter()

    @property
    def segments(self) -> tuple[Segment, ...]:
        return tuple(self._segments)

    def add(self, call: Call) -> Merge:
        """Joins a call. Raises `InvalidTurn`, and adds nothing, when counts or log-probs can't be true."""
        check_tokens(len(call.output_ids), call.behaviour_logprobs, call.policy_versions)
        merge, position, base = self._place(call.prompt_ids)
        turn = Turn(
            start=len(call.prompt_ids),
            end=len(call.prompt_ids) + len(call.output_ids),
            behaviour_logprobs=call.behaviour_logprobs,
            policy_versions=call.policy_versions,
            index=self._calls,
            fault=call.fault,
        )
        segment = Segment(ids=call.prompt_ids + call.output_ids, turns=(*base, turn))
        self._segments[position : position + 1] = [segment]
        self._calls += 1
        self.counts[merge] += 1
        return merge

    def credit(self, index: int, reward: float) -> None:
        """Gives a step reward to a turn by its index."""
        for position, segment in enumerate(self._segments):
            turns = tuple(replace(turn, reward=reward) if turn.index == index else turn for turn in segment.turns)
            self._segments[position] = replace(segment, turns=turns)

    def _place(self, prompt: tuple[int, ...]) -> tuple[Merge, int, tuple[Turn, ...]]:
        """How the prompt joins, at which segment, and the turns that stay in front of it."""
        clean = [
            (len(segment.ids), position)
            for position, segment in enumerate(self._segments)
            if prompt[: len(segment.ids)] == segment.ids
        ]
        if clean:
            _, position = max(clean)
            return Merge.CLEAN, position, self._segments[position].turns
        realigned = [
            (agreed, position, turns)
            for position, segment in enumerate(self._segments)
            for agreed in [common_prefix(prompt, segment.ids)]
            if (turns := self._overwritten(segment, prompt, agreed)) is not None
        ]
        if realigned:
            _, position, turns = max(realigned, key=lambda found: found[:2])
            lost = len(self._segments[position].turns[-1].behaviour_logprobs) - len(turns[-1].behaviour_logprobs)
            self.counts["realigned_tokens"] += lost
            return Merge.REALIGN, position, turns
        return Merge.FORK, len(self._segments), ()

    def _overwritten(self, segment: Segment, prompt: tuple[int, ...], agreed: int) -> tuple[Turn, ...] | None:
        """The segment's turns once its newest ends at `agreed`; None when that is no small respelling of its tail."""
        last = segment.turns[-1]
        # A prompt that ends where they agree is another answer to the same question, not a respelling.
        if not last.start < agreed < len(prompt) or last.end - agreed > self._realign_tokens:
            return None
        kept = agreed - last.start
        shorter = replace(
            last,
            end=last.start + kept,
            behaviour_logprobs=last.behaviour_logprobs[:kept],
            policy_versions=last.policy_versions[:kept],
        )
        return (*segment.turns[:-1], shorter)


def common_prefix(left: Sequence[int], right: Sequence[int]) -> int:
    """How many leading ids agree, by bisection over slices: prompts have 10⁵ ids, and slices compare at C speed."""
    low, high = 0, min(len(left), len(right))
    while low < high:
        middle = (low + high + 1) // 2
        if left[low:middle] == right[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
