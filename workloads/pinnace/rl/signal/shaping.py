"""Among right answers the shorter one is better: a bonus by rank, which sums to nothing over them.

Ranks, not lengths: one outlier of a hundred turns does not squeeze the others together, and the scale is known.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal

from pinnace.rl.types import Trajectory, Verdict

from .judged import Judged

ShapeBy = Literal["off", "turns", "tokens"]
_LENGTH: dict[str, Callable[[Trajectory], int]] = {
    "turns": lambda trajectory: len(trajectory.turns),
    "tokens": lambda trajectory: trajectory.sampled_tokens,
}


def shape_by_rank(group: Sequence[Judged], *, by: ShapeBy, scale: float = 0.1) -> list[Judged]:
    """Adds `scale` (the shortest) to `-scale` (the longest) to right answers' rewards. Counted as `shaped`.

    Equal lengths share the mean of their ranks. The reward that is changed is the one advantages are made of.
    """
    right = [
        index
        for index, item in enumerate(group)
        if by != "off" and item.counts > 0 and item.trajectory.reward.verdict is Verdict.RIGHT
    ]
    if len(right) < 2:
        return list(group)
    lengths = {index: _LENGTH[by](group[index].trajectory) for index in right}
    out = list(group)
    for index in right:
        shorter = sum(length < lengths[index] for length in lengths.values())
        longer = sum(length > lengths[index] for length in lengths.values())
        bonus = scale * (longer - shorter) / (len(right) - 1)
        reward = group[index].reward
        if bonus and reward is not None:
            out[index] = replace(group[index], reward=reward + bonus).because("shaped")
    return out
