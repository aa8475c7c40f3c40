"""How many pods, from the calls that are under way: a pure function that neither flaps nor forgets anybody.

More at once, fewer late. Between the two bounds of the load per pod (110 % and 80 % of the target) nothing changes, and
each change downwards ends within them: so a load that stays the same changes the number only once.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from pinnace_operator.reconcile import clock

_MORE_PERCENT, _FEWER_PERCENT = 110, 80
_GRAIN_SECONDS = 15
"""How exact `busy` is kept: each change of it is a write of the status."""


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """What the spec allows."""

    low: int
    high: int
    target: int
    """Calls that one pod should have at a time."""
    cooldown: int
    """Seconds."""


@dataclass(frozen=True, kw_only=True)
class Size:
    """A number of pods, and when it was last changed or needed (to within a few seconds)."""

    replicas: int
    busy: datetime | None


def resize(before: Size, bounds: Bounds, calls: int | None, now: datetime) -> Size:
    """The number of pods from now on.

    Args:
        calls: under way and waiting, over all gateways; None when nobody knows: then the number stays as it is.
    """
    current = min(max(before.replicas, bounds.low), bounds.high)
    if current != before.replicas:
        return Size(replicas=current, busy=now)
    if calls is None:
        return before
    needed = min(bounds.high, _ceil(calls, bounds.target))
    if needed > current and calls * 100 > current * bounds.target * _MORE_PERCENT:
        return Size(replicas=needed, busy=now)
    return _fewer(before, bounds, calls, now) if current > bounds.low else before


def _fewer(before: Size, bounds: Bounds, calls: int, now: datetime) -> Size:
    """The same number, or fewer when they were not needed for the whole cool-down."""
    enough = max(bounds.low, _ceil(calls * 100, bounds.target * _FEWER_PERCENT))
    if enough >= before.replicas or before.busy is None:
        return Size(replicas=before.replicas, busy=touched(before.busy, now, bounds.cooldown))
    if clock.remaining(before.busy, bounds.cooldown, now):
        return before
    # Half at a time: a pause in the load must not cost everything that was started for it.
    return Size(replicas=max(enough, before.replicas // 2), busy=now)


def touched(busy: datetime | None, now: datetime, cooldown: int) -> datetime:
    """`now`, or the time before it that is near enough."""
    grain = min(_GRAIN_SECONDS, cooldown // 4)
    return busy if busy and clock.seconds_since(busy, now) < grain else now


def _ceil(number: int, divisor: int) -> int:
    return -(-number // divisor)
