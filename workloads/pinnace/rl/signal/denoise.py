"""The rules in their order. Off-policy masking needs the trainer's log-probs and is a loss correction (`rl.loss`)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from pinnace.rl.types import SETTINGS, Trajectory

from .faults import punish_faults_where_they_are
from .gate import refill_reason
from .judged import Judged, judged
from .long_failures import LongFailures, soften_long_failures
from .shaping import ShapeBy, shape_by_rank
from .short_successes import exclude_short_successes
from .unknown import exclude_unknown


@dataclass(frozen=True, kw_only=True)
class Denoising:
    """Every rule's switch; the rules' own docstrings say what the values do."""

    __pydantic_config__ = SETTINGS

    long_failures: LongFailures = "exclude"
    long_failures_reserved: int = 0
    long_failures_weight: float = 0.25
    short_success_turns: int = 0
    fault_penalty: float | None = 0.5
    refill_zero_variance: bool = True
    shape_by: ShapeBy = "off"
    shape_scale: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.long_failures_weight <= 1:
            raise ValueError(f"long_failures_weight is {self.long_failures_weight}: give (0, 1], or use `exclude`")
        if self.long_failures_reserved < 0 or self.short_success_turns < 0 or (self.fault_penalty or 0) < 0:
            raise ValueError("counts and penalties can't be negative: a penalty of 0.5 lowers an advantage to -0.5")


@dataclass(frozen=True)
class Denoised:
    """One group after the rules: train on `members`, or refill for the reason. `counts` goes to the metrics."""

    members: tuple[Judged, ...]
    refill: str | None
    counts: Counter[str]


def denoise(group: Sequence[Trajectory], rules: Denoising) -> Denoised:
    """Applies the rules to one group. Rewards as the grader gave them decide the gate; shaping comes after it."""
    members = exclude_unknown([judged(trajectory) for trajectory in group])
    members = soften_long_failures(
        members,
        mode=rules.long_failures,
        reserve=rules.long_failures_reserved,
        weight=rules.long_failures_weight,
        seed=f"{rules.seed}-{group[0].group_id if group else ''}",
    )
    members = exclude_short_successes(members, turns=rules.short_success_turns)
    members = punish_faults_where_they_are(members, penalty=rules.fault_penalty)
    refill = refill_reason(members) if rules.refill_zero_variance else None
    members = shape_by_rank(members, by=rules.shape_by, scale=rules.shape_scale)
    counts = Counter(reason for member in members for reason in member.reasons)
    if refill:
        counts[f"group_{refill}"] += 1
    return Denoised(tuple(members), refill, counts)
