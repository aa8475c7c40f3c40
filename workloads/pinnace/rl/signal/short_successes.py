"""A right answer without work is luck or leakage: learning from it teaches not to search."""

from __future__ import annotations

from collections.abc import Sequence

from pinnace.rl.types import Verdict

from .judged import Judged


def exclude_short_successes(group: Sequence[Judged], *, turns: int) -> list[Judged]:
    """Excludes right answers of at most `turns` turns (0: off). Counted as `short_success`."""
    return [
        item.excluded("short_success")
        if item.counts > 0 and item.trajectory.reward.verdict is Verdict.RIGHT and len(item.trajectory.turns) <= turns
        else item
        for item in group
    ]
