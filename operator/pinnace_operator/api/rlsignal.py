"""How an RLRun makes a loss of rewards: which attempts count, for how much, and by which formula."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from pinnace_operator.api.base import ApiModel, Rule
from pinnace_operator.api.fields import DecimalString, decimal_between, whole

_Share = Annotated[
    DecimalString,
    decimal_between("0", "1", 'must be a decimal in quotes above 0 and at most 1, such as "0.2"', above_low=True),
]
_Factor = Annotated[
    DecimalString,
    decimal_between("0", "1000", 'must be a decimal in quotes from 0 to 1000, such as "0.5"'),
]


class Mode(StrEnum):
    """Whether training and sampling wait for each other."""

    ASYNC = "Async"
    SYNC = "Sync"


class RLSchedule(ApiModel):
    """How much is played at once, and how old it may be when it is trained on."""

    mode: Mode = Mode.ASYNC
    """Async: sampling goes on during steps. Sync: each step is made of what the newest policy wrote."""
    groups_per_step: Annotated[int, whole(1, 65_536)] = 8
    """Groups of one optimizer step."""
    group_size: Annotated[
        int,
        whole(1, 4096),
        Rule(
            "self >= 2", "a baseline needs at least 2 attempts at a task: set groupSize to 2 or more", lambda n: n >= 2
        ),
    ] = 8
    """Attempts at one task; their rewards are each other's baseline."""
    max_staleness: Annotated[int, whole(0, 1000)] = 2
    """How many policy versions old a token may be when it is trained on: a hard bound. 0 is synchronous."""
    concurrency: Annotated[int, whole(1, 1_000_000)] = 64
    """The most attempts under way, over all samplers."""
    attempts: Annotated[int, whole(1, 100)] = 3
    """How often an attempt is tried until its reward is known, before its group goes on without it."""

    rules = (
        Rule(
            "self.mode != 'Async' || self.maxStaleness >= 1",
            "schedule.maxStaleness: 0 allows no sampling during a step: set it to 1 or more, or mode to Sync",
            lambda given: given.mode is not Mode.ASYNC or given.max_staleness >= 1,
            field=".maxStaleness",
        ),
        Rule(
            "self.mode != 'Sync' || self.maxStaleness == 0",
            "schedule.maxStaleness: mode Sync trains on the newest policy only: set it to 0, or mode to Async",
            lambda given: given.mode is not Mode.SYNC or given.max_staleness == 0,
            field=".maxStaleness",
        ),
        Rule(
            "self.concurrency >= self.groupSize",
            "schedule.concurrency: it holds no whole group: raise it to groupSize or more, or lower groupSize",
            lambda given: given.concurrency >= given.group_size,
            field=".concurrency",
        ),
    )


class Advantage(StrEnum):
    """What an attempt is compared with."""

    MEAN = "Mean"
    LEAVE_ONE_OUT = "LeaveOneOut"
    STD = "Std"
    PER_TURN = "PerTurn"


class Normalisation(StrEnum):
    """What the loss is a mean over."""

    TOKEN = "Token"  # noqa: S105 - a word, no password
    SEQUENCE = "Sequence"
    TRAJECTORY = "Trajectory"
    CONSTANT = "Constant"


class LongFailures(StrEnum):
    """What a failure at the turn, context or time limit counts."""

    EXCLUDE = "Exclude"
    STEP_CREDIT = "StepCredit"
    RESERVE = "Reserve"
    DOWN_WEIGHT = "DownWeight"
    KEEP = "Keep"


class ZeroVariance(StrEnum):
    """What becomes of a group in which all attempts are worth the same."""

    REFILL = "Refill"
    KEEP = "Keep"


class ShapeBy(StrEnum):
    """By what successes of a group are ranked."""

    OFF = "Off"
    TURNS = "Turns"
    TOKENS = "Tokens"


class RLSignal(ApiModel):
    """Which attempts teach, and how much. Every rule is counted in the metrics; docs/rl.md explains each.

    Unknown rewards never count, whatever is set here.
    """

    advantage: Advantage = Advantage.MEAN
    """Mean of the group, LeaveOneOut, Std (the mean, over the deviation), PerTurn (by the rewards of turns)."""
    normalisation: Normalisation = Normalisation.TOKEN
    """Token (DAPO), Sequence (GRPO), Trajectory (one that forked weighs no more), Constant (Dr. GRPO)."""
    constant_tokens: Annotated[int, whole(1, 16_777_216)] | None = None
    """With Constant: the most tokens that a trajectory may write."""
    long_failures: LongFailures = LongFailures.EXCLUDE
    """Failures at a limit: Exclude, StepCredit (only turns' own rewards), Reserve (some a group), DownWeight, Keep."""
    long_failures_reserved: Annotated[int, whole(0, 4096)] = 0
    """With Reserve: how many of a group."""
    long_failures_weight: _Share = "0.25"
    """With DownWeight: their weight, a decimal in quotes."""
    short_success_turns: Annotated[int, whole(0, 1000)] = 0
    """Successes of fewer turns are trivial and left out; 0: none are."""
    fault_penalty: _Factor = "0.5"
    """Advantage, below zero, of a malformed or repeated turn, at that turn only; \"0\" leaves it without credit."""
    zero_variance: ZeroVariance = ZeroVariance.REFILL
    """Groups with nothing to learn: Refill them with another, or Keep them."""
    shape_by: ShapeBy = ShapeBy.OFF
    """Shorter successes count more, by rank: Off, by Turns or by Tokens."""
    shape_scale: _Share = "0.1"
    """How much more the shortest counts, a decimal in quotes."""

    rules = (
        Rule(
            "(self.normalisation == 'Constant') == has(self.constantTokens)",
            "signal.constantTokens: it belongs to normalisation Constant: set both, or neither",
            lambda given: (given.normalisation is Normalisation.CONSTANT) == (given.constant_tokens is not None),
            field=".constantTokens",
        ),
        Rule(
            "(self.longFailures == 'Reserve') == (self.longFailuresReserved > 0)",
            "signal.longFailuresReserved: it is at least 1 with longFailures Reserve, else 0: set both, or neither",
            lambda given: (given.long_failures is LongFailures.RESERVE) == (given.long_failures_reserved > 0),
            field=".longFailuresReserved",
        ),
    )


class Clipped(ApiModel):
    """The ratio of policies stays within [1 - clipLow, 1 + clipHigh]."""

    clip_low: _Share = "0.2"
    """How far it may fall, a decimal in quotes."""
    clip_high: _Factor = "0.28"
    """How far it may rise (clip-higher of DAPO), a decimal in quotes."""


class SequenceClipped(ApiModel):
    """The ratio of whole sequences (their geometric mean) stays within [1 - clipLow, 1 + clipHigh]."""

    clip_low: _Share = "0.0003"
    """How far it may fall, a decimal in quotes."""
    clip_high: _Factor = "0.0004"
    """How far it may rise, a decimal in quotes."""


class Cispo(ApiModel):
    """REINFORCE with a ratio that is cut off and not differentiated."""

    ratio_max: _Factor = "5"
    """The largest ratio, a decimal in quotes."""


class Decoupled(Clipped):
    """Clips against the policy before the step, and weighs by how far that is from the one that sampled."""

    weight_max: _Factor = "5"
    """The largest weight, a decimal in quotes."""


class Band(ApiModel):
    """Tokens whose trainer's and server's probabilities differ more leave the loss."""

    low: _Factor = "0.5"
    """The smallest ratio, a decimal in quotes."""
    high: _Factor = "5"
    """The largest ratio, a decimal in quotes."""


class NarrowBand(ApiModel):
    """Sequences whose mean ratio of trainer to server lies outside leave the loss."""

    low: _Factor = "0.99"
    """The smallest ratio, a decimal in quotes."""
    high: _Factor = "1.01"
    """The largest ratio, a decimal in quotes."""


class Tis(ApiModel):
    """Truncated importance sampling."""

    cap: _Factor = "2"
    """The largest weight, a decimal in quotes."""


class OffPolicyMask(ApiModel):
    """Negative sequences that the policy has moved away from leave the loss (OPSM)."""

    threshold: _Factor = "0.05"
    """From which mean difference of log-probs on, a decimal in quotes."""


class Corrections(ApiModel):
    """For the difference between trainer and server, and between policy versions; those that are named apply."""

    icepop: Band | None = None
    tis: Tis | None = None
    geometric_mask: NarrowBand | None = None
    off_policy_mask: OffPolicyMask | None = None


_LOSSES = {
    "grpo": "grpo",
    "drGrpo": "dr_grpo",
    "gspo": "gspo",
    "cispo": "cispo",
    "minirl": "minirl",
    "decoupledPpo": "decoupled_ppo",
}


class RLLoss(ApiModel):
    """One loss with its parameters, such as `gspo: {}` (none: grpo), and corrections."""

    grpo: Clipped | None = None
    """GRPO with DAPO's clip-higher."""
    dr_grpo: Clipped | None = None
    """Dr. GRPO: grpo, to be used with normalisation Constant."""
    gspo: SequenceClipped | None = None
    cispo: Cispo | None = None
    minirl: Clipped | None = None
    """MiniRL: clips by the sign of the advantage, without a ratio in the gradient."""
    decoupled_ppo: Decoupled | None = None
    corrections: Corrections = Field(default_factory=Corrections)

    rules = (
        Rule(
            f"[{', '.join(f'has(self.{name})' for name in _LOSSES)}].filter(given, given).size() <= 1",
            f"loss: give at most one of {', '.join(_LOSSES)}: remove the others",
            lambda loss: sum(getattr(loss, name) is not None for name in _LOSSES.values()) <= 1,
        ),
    )
