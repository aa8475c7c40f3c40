"""A trajectory and what the denoising rules decided about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from pinnace.rl.types import Trajectory


@dataclass(frozen=True, kw_only=True)
class Judged:
    """Rules return changed copies; nothing is decided elsewhere.

    Attributes:
        reward: what advantages are made of; None when unknown. Shaping changes it, the trajectory's own stays.
        counts: weight in the group's baseline; 0 keeps the reward out of it and the trajectory-wide advantage with it.
        weight: factor of its tokens in the loss.
        own: advantages of single turns by `Turn.index`, for a trajectory that has no trajectory-wide one.
        ceiling: the most that a turn's advantage may be; a turn with one is trained in any case.
        reasons: the rules that touched it, for the counters.
    """

    trajectory: Trajectory
    reward: float | None
    counts: float = 1.0
    weight: float = 1.0
    own: Mapping[int, float] = field(default_factory=dict)
    ceiling: Mapping[int, float] = field(default_factory=dict)
    reasons: tuple[str, ...] = ()

    def excluded(self, reason: str) -> Judged:
        """Neither in the baseline nor, unless a turn has its own credit or fault, in the loss."""
        return replace(self, counts=0.0, reasons=(*self.reasons, reason))

    def because(self, reason: str) -> Judged:
        return replace(self, reasons=(*self.reasons, reason))


def judged(trajectory: Trajectory) -> Judged:
    """A trajectory that no rule has seen yet."""
    return Judged(trajectory=trajectory, reward=trajectory.reward.value)
