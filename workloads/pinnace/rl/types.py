"""The words of reinforcement learning, and their JSON: turns in segments, trajectories, rewards, samples.

A trajectory is kept as *segments*: token sequences the model really saw, with the spans it wrote. A later prompt that
extends an earlier one adds to its segment, so a trajectory of a hundred turns takes the room of its longest context,
not of all its prompts (`pinnace.rl.capture.merge`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Literal

from pydantic import ConfigDict, TypeAdapter
from pydantic.alias_generators import to_camel

SETTINGS = ConfigDict(extra="forbid", frozen=True, alias_generator=to_camel, populate_by_name=True)
"""Of everything that a run's configuration is read into: camelCase, and a key that nobody knows is an error."""
CONTEXT_VERSION = -1  # the policy version of a token that no policy wrote


class InvalidTurn(ValueError):
    """What a rollout server gave back can't be trained on (counts differ, or a log-prob is no log-probability)."""


class InvalidReward(ValueError):
    """A reward that is no number: the grader is broken, and silence would train on noise."""


class Verdict(StrEnum):
    """What a grader found out."""

    RIGHT = "right"
    WRONG = "wrong"
    UNKNOWN = "unknown"  # nobody could tell: infrastructure or judge failed


class Termination(StrEnum):
    """Why an episode ended."""

    ANSWERED = "answered"
    TURN_LIMIT = "turn_limit"
    CONTEXT_LIMIT = "context_limit"
    TIME_LIMIT = "time_limit"
    MALFORMED = "malformed"  # the harness gave up on unreadable output
    REPETITION = "repetition"  # the harness gave up on output that repeats itself
    INFRASTRUCTURE = "infrastructure"  # a tool, a sandbox or a server failed; says nothing about the policy


class Fault(StrEnum):
    """What is wrong with one turn, whatever became of the episode."""

    FORMAT = "format"
    REPETITION = "repetition"


@dataclass(frozen=True, kw_only=True)
class Reward:
    """Tri-state: `value` is a finite number when the verdict is right or wrong, and None when it is unknown."""

    verdict: Verdict
    value: float | None = None
    cause: Literal["infrastructure", "judge"] | None = None
    detail: str = ""

    def __post_init__(self) -> None:
        known = self.verdict is not Verdict.UNKNOWN
        if known and (self.value is None or not math.isfinite(self.value)):
            raise InvalidReward(f"a {self.verdict} answer needs a finite reward, got {self.value}: correct the grader")
        if not known and (self.value is not None or self.cause is None):
            raise InvalidReward("an unknown reward has a cause and no value")

    @classmethod
    def right(cls, value: float = 1.0) -> Reward:
        return cls(verdict=Verdict.RIGHT, value=value)

    @classmethod
    def wrong(cls, value: float = 0.0) -> Reward:
        return cls(verdict=Verdict.WRONG, value=value)

    @classmethod
    def unknown(cls, cause: Literal["infrastructure", "judge"], detail: str = "") -> Reward:
        return cls(verdict=Verdict.UNKNOWN, cause=cause, detail=detail)


@dataclass(frozen=True, kw_only=True)
class Turn:
    """What the model wrote once: the ids `[start, end)` of its segment, each with log-prob and policy version.

    Attributes:
        behaviour_logprobs: natural logarithms, as the sampler drew with them; one a token.
        policy_versions: the weights that wrote each token (they may change within a turn).
        reward: step reward, when the task gives one.
        index: position among the trajectory's turns, in the order of sampling.
    """

    start: int
    end: int
    behaviour_logprobs: tuple[float, ...]
    policy_versions: tuple[int, ...]
    index: int = 0
    fault: Fault | None = None
    reward: float | None = None

    def __post_init__(self) -> None:
        tokens = self.end - self.start
        if self.start < 0 or tokens < 0:
            raise InvalidTurn(f"a turn can't be the span [{self.start}, {self.end})")
        check_tokens(tokens, self.behaviour_logprobs, self.policy_versions)


def check_tokens(tokens: int, logprobs: tuple[float, ...], versions: tuple[int, ...]) -> None:
    """Raises `InvalidTurn` unless there are as many log-probs and versions as tokens, all of them believable."""
    if len(logprobs) != tokens or len(versions) != tokens:
        raise InvalidTurn(f"{tokens} tokens with {len(logprobs)} log-probs and {len(versions)} policy versions")
    for position, logprob in enumerate(logprobs):
        # Some kernels round a certain token to slightly above zero; NaN fails every comparison.
        if not -math.inf < logprob <= 0.01:
            raise InvalidTurn(f"token {position} has the log-prob {logprob}: the sampler could not have drawn it")
    if any(version < 0 for version in versions):
        raise InvalidTurn(f"policy version {min(versions)}: versions count from 0")


@dataclass(frozen=True, kw_only=True)
class Segment:
    """A token sequence as the model saw it. Ids outside the turns are context: given, not written."""

    ids: tuple[int, ...]
    turns: tuple[Turn, ...] = ()

    def __post_init__(self) -> None:
        end = 0
        for turn in self.turns:
            if turn.start < end or turn.end > len(self.ids):
                raise InvalidTurn(f"turn [{turn.start}, {turn.end}) overlaps another or leaves {len(self.ids)} ids")
            end = turn.end


@dataclass(frozen=True, kw_only=True)
class Trajectory:
    """One attempt at a task, from first prompt to reward. Members of a group attempt the same task."""

    id: str
    task_id: str
    group_id: str
    segments: tuple[Segment, ...]
    reward: Reward
    termination: Termination
    attempt: int = 0

    @cached_property
    def turns(self) -> tuple[Turn, ...]:
        """All turns, in the order they were sampled."""
        return tuple(sorted((turn for part in self.segments for turn in part.turns), key=lambda turn: turn.index))

    @property
    def sampled_tokens(self) -> int:
        return sum(turn.end - turn.start for turn in self.turns)

    @property
    def oldest_version(self) -> int | None:
        """The oldest policy that wrote a token of it; None when nothing was written."""
        return min((version for turn in self.turns for version in turn.policy_versions), default=None)


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One training sequence; every field but the names has one entry a token of `ids`.

    Where `loss_mask` is false the other streams are 0 (versions: -1). The loss of a batch is the sum over all its
    tokens of `weights` times the token's loss: the weights already hold the normalisation over the whole batch, so
    no split into micro-batches or ranks changes it.
    """

    trajectory_id: str
    group_id: str
    ids: tuple[int, ...]
    loss_mask: tuple[bool, ...]
    behaviour_logprobs: tuple[float, ...]
    policy_versions: tuple[int, ...]
    advantages: tuple[float, ...]
    weights: tuple[float, ...]

    def __post_init__(self) -> None:
        streams = (self.loss_mask, self.behaviour_logprobs, self.policy_versions, self.advantages, self.weights)
        if any(len(stream) != len(self.ids) for stream in streams):
            raise ValueError(f"{len(self.ids)} ids with streams of {[len(stream) for stream in streams]} entries")
        if self.loss_mask and self.loss_mask[0]:
            raise ValueError("the first token has nothing before it, so it has no log-prob to train")

    @property
    def trained_tokens(self) -> int:
        return sum(self.loss_mask)


_TRAJECTORY = TypeAdapter(Trajectory)
_SAMPLE = TypeAdapter(Sample)


def dump_trajectory(trajectory: Trajectory) -> bytes:
    """JSON that `load_trajectory` reads back to an equal trajectory, floats to the last bit."""
    return _TRAJECTORY.dump_json(trajectory)


def load_trajectory(body: bytes) -> Trajectory:
    """Raises `pydantic.ValidationError` (a ValueError) for anything but a trajectory."""
    return _TRAJECTORY.validate_json(body)


def dump_sample(sample: Sample) -> bytes:
    """JSON of one sample."""
    return _SAMPLE.dump_json(sample)


def load_sample(body: bytes) -> Sample:
    """The inverse of `dump_sample`."""
    return _SAMPLE.validate_json(body)
