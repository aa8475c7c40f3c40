"""Infrastructure and judge failures say nothing about the policy: not wrong, not 0, but unknown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from pinnace.rl.types import Termination, Verdict

from .judged import Judged


def exclude_unknown(group: Sequence[Judged]) -> list[Judged]:
    """Counted as `unknown_infrastructure` or `unknown_judge`. Has no switch: a guess must not enter a baseline."""
    return [
        replace(item, reward=None).excluded(f"unknown_{_cause(item)}") if _unknown(item) else item for item in group
    ]


def _unknown(item: Judged) -> bool:
    trajectory = item.trajectory
    return trajectory.reward.verdict is Verdict.UNKNOWN or trajectory.termination is Termination.INFRASTRUCTURE


def _cause(item: Judged) -> str:
    return item.trajectory.reward.cause or "infrastructure"
