"""How much better than its group a trajectory did. One function a method; all take and return the same.

Every function takes the members of one group and returns, for each, the advantage of each of its turns (an empty tuple
for a member that is not in the baseline: it has no trajectory-wide advantage).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from .judged import Judged

Advantages = Callable[[Sequence[Judged]], list[tuple[float, ...]]]


def mean(group: Sequence[Judged]) -> list[tuple[float, ...]]:
    """r - mean(r), as Dr. GRPO (Liu et al. 2025, §3): dividing by the deviation would favour easy and hard tasks."""
    baseline = _mean(group)
    return _spread(group, lambda _, reward: reward - baseline)


def leave_one_out(group: Sequence[Judged]) -> list[tuple[float, ...]]:
    """r - mean of the others' (RLOO, Ahmadian et al. 2024, eq. 8); 0 for the only known one."""
    total, weight = _sums(group)

    def advantage(item: Judged, reward: float) -> float:
        others = weight - item.counts
        return reward - (total - item.counts * reward) / others if others > 0 else 0.0

    return _spread(group, advantage)


def std(group: Sequence[Judged], *, epsilon: float = 1e-4) -> list[tuple[float, ...]]:
    """(r - mean(r)) / (std(r) + ε) with the unbiased deviation, as GRPO (DeepSeekMath, Shao et al. 2024, §4.1)."""
    baseline = _mean(group)
    known = [(item.counts, item.reward - baseline) for item in group if item.counts > 0 and item.reward is not None]
    freedom = sum(counts for counts, _ in known) * (1 - 1 / max(2, len(known)))
    variance = sum(counts * delta**2 for counts, delta in known) / freedom if known else 0.0
    return _spread(group, lambda _, reward: (reward - baseline) / (math.sqrt(variance) + epsilon))


def per_turn(group: Sequence[Judged]) -> list[tuple[float, ...]]:
    """Return from each turn on (its and later step rewards, plus the final reward) minus the mean at that turn.

    Trajectories that reach the turn make the baseline; where only one does, its final reward is compared with the
    group's mean, as `mean` does.
    """
    returns = [_returns(item) for item in group]
    baseline = _mean(group)
    advantages = []
    for item, own in zip(group, returns, strict=True):
        row = []
        for turn, value in enumerate(own):
            others = [
                (it.counts, it_own[turn]) for it, it_own in zip(group, returns, strict=True) if turn < len(it_own)
            ]
            if len(others) > 1:
                row.append(value - sum(c * r for c, r in others) / sum(c for c, _ in others))
            else:
                row.append((item.reward or 0.0) - baseline)
        advantages.append(tuple(row))
    return advantages


def _returns(item: Judged) -> tuple[float, ...]:
    if item.counts <= 0 or item.reward is None:
        return ()
    total, returns = item.reward, list[float]()
    for turn in reversed(item.trajectory.turns):
        total += turn.reward or 0.0
        returns.append(total)
    return tuple(reversed(returns))


def _sums(group: Sequence[Judged]) -> tuple[float, float]:
    known = [(item.counts, item.reward) for item in group if item.counts > 0 and item.reward is not None]
    return math.fsum(counts * reward for counts, reward in known), math.fsum(counts for counts, _ in known)


def _mean(group: Sequence[Judged]) -> float:
    total, weight = _sums(group)
    return total / weight if weight else 0.0


def _spread(group: Sequence[Judged], advantage: Callable[[Judged, float], float]) -> list[tuple[float, ...]]:
    return [
        (advantage(item, item.reward),) * len(item.trajectory.turns)
        if item.counts > 0 and item.reward is not None
        else ()
        for item in group
    ]


ADVANTAGES: dict[str, Advantages] = {"mean": mean, "leave-one-out": leave_one_out, "std": std, "per-turn": per_turn}
