"""Unreadable or repeated output is punished at its own step, and nowhere else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from pinnace.rl.types import Fault, Termination, Verdict

from .judged import Judged

_ENDED_BY = {Termination.MALFORMED: Fault.FORMAT, Termination.REPETITION: Fault.REPETITION}


def punish_faults_where_they_are(group: Sequence[Judged], *, penalty: float | None) -> list[Judged]:
    """Counted as `fault_<kind>`, once a trajectory and kind.

    A faulty turn's advantage is at most `-penalty` (None: off). A failure that *is* the fault (the harness gave up)
    is no verdict about the turns before it, so the trajectory leaves the baseline and only the fault is trained.
    """
    return list(group) if penalty is None else [_punish(item, penalty) for item in group]


def _punish(item: Judged, penalty: float) -> Judged:
    trajectory = item.trajectory
    faults = {turn.index: turn.fault for turn in trajectory.turns if turn.fault is not None}
    ended_by = _ENDED_BY.get(trajectory.termination)
    if ended_by and trajectory.turns and trajectory.reward.verdict is not Verdict.RIGHT:
        faults.setdefault(trajectory.turns[-1].index, ended_by)
        item = replace(item, counts=0.0)
    if not faults:
        return item
    reasons = tuple(f"fault_{kind}" for kind in sorted(set(faults.values())))
    return replace(item, ceiling=dict.fromkeys(faults, -penalty), reasons=(*item.reasons, *reasons))
