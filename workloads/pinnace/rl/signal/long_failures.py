"""A failure at the turn, context or time limit takes no whole-trajectory penalty: its early steps may be the best ones.

AgentCPM-Explore's report calls this the rule that keeps long-horizon exploration alive; it names only the first mode.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from pinnace.rl.types import Termination, Verdict

from .judged import Judged

LongFailures = Literal["keep", "exclude", "step-credit", "reserve", "down-weight"]
LIMITS = (Termination.TURN_LIMIT, Termination.CONTEXT_LIMIT, Termination.TIME_LIMIT)


def soften_long_failures(
    group: Sequence[Judged], *, mode: LongFailures, reserve: int = 0, weight: float = 0.25, seed: str = ""
) -> list[Judged]:
    """Counted as `long_failure_<mode>`; a reserved one as `long_failure_kept`.

    Args:
        group: one group.
        mode: `keep` (off), `exclude`, `step-credit` (only turns with a step reward are trained, on that reward minus
            the group's mean step reward), `reserve` (keep so many, excluded the rest), `down-weight`.
        reserve: how many `reserve` keeps, drawn with `seed`.
        weight: factor of `down-weight`, in the baseline and in the loss.
        seed: makes the draw repeatable.
    """
    if mode == "keep":
        return list(group)
    long = [index for index, item in enumerate(group) if _failed_long(item)]
    kept = set(random.Random(seed).sample(long, min(reserve, len(long)))) if mode == "reserve" else set()  # noqa: S311
    steps = [turn.reward for item in group for turn in item.trajectory.turns if turn.reward is not None]
    mean = sum(steps) / len(steps) if steps else 0.0
    out = list(group)
    for index in long:
        item = group[index]
        if index in kept:
            out[index] = item.because("long_failure_kept")
        elif mode == "down-weight":
            softer = replace(item, counts=item.counts * weight, weight=item.weight * weight)
            out[index] = softer.because("long_failure_down-weight")
        else:
            out[index] = item.excluded(f"long_failure_{mode}")
            if mode == "step-credit":
                turns = item.trajectory.turns
                credit = {turn.index: turn.reward - mean for turn in turns if turn.reward is not None}
                out[index] = replace(out[index], own=credit)
    return out


def _failed_long(item: Judged) -> bool:
    trajectory = item.trajectory
    return item.counts > 0 and trajectory.termination in LIMITS and trajectory.reward.verdict is Verdict.WRONG
