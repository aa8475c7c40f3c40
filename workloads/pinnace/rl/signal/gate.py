"""Is there anything to learn from this group? If not, the scheduler starts another in its place."""

from __future__ import annotations

from collections.abc import Sequence

from .judged import Judged

EPSILON = 1e-6


def refill_reason(group: Sequence[Judged]) -> str | None:
    """None: train on it. Else why another group must fill its place.

    - `too_few_known`: fewer than two rewards to compare.
    - `zero_variance`: all known rewards are equal, so every advantage is 0.
    - `zero_variance_by_exclusion`: they are equal only because failures were excluded. The number of these is the
      bias of the rules: where it grows, tasks are too long for their limits.

    A group in which single turns have a credit or a fault of their own always has something to learn from.
    """
    if any(item.own or item.ceiling for item in group):
        return None
    rewards = [item.reward for item in group if item.counts > 0 and item.reward is not None]
    if len(rewards) >= 2 and max(rewards) - min(rewards) > EPSILON:
        return None
    known = [item.reward for item in group if item.reward is not None]
    if len(known) >= 2 and max(known) - min(known) > EPSILON:
        return "zero_variance_by_exclusion"
    return "too_few_known" if len(rewards) < 2 else "zero_variance"
