"""How many pods: tables, and what must hold for any load."""

from __future__ import annotations

from datetime import timedelta
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pinnace_operator.reconcile.scale import Bounds, Size, resize

from e2e.simulation.objects import NOW

LONG_AGO = NOW - timedelta(seconds=3600)
BOUNDS = Bounds(low=0, high=8, target=8, cooldown=60)

# (what, pods, busy so many seconds ago, calls, low, pods then)
CASES = [
    ("a call at zero starts one at once", 0, 3600, 1, 0, 1),
    ("many calls at zero start as many as they need", 0, 3600, 40, 0, 5),
    ("nothing happens at zero without calls", 0, 3600, 0, 0, 0),
    ("a little above the target is no reason", 2, 0, 17, 0, 2),
    ("well above it is", 2, 0, 18, 0, 3),
    ("never more than allowed", 2, 0, 10_000, 0, 8),
    ("fewer only after the cool-down", 4, 59, 1, 0, 4),
    ("then half of them", 4, 60, 1, 0, 2),
    ("but as many as the load needs", 8, 60, 40, 0, 7),
    ("the last one goes too", 1, 60, 0, 0, 0),
    ("unless one must stay", 1, 3600, 0, 1, 1),
    ("below the lower bound is corrected", 0, 0, 0, 2, 2),
    ("above the upper bound is corrected", 12, 0, 900, 0, 8),
]  # fmt: skip


@pytest.mark.parametrize(
    ("before", "ago", "calls", "low", "after"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
def test_table(before: int, ago: int, calls: int, low: int, after: int) -> None:
    bounds = Bounds(low=low, high=8, target=8, cooldown=60)
    assert resize(Size(replicas=before, busy=NOW - timedelta(seconds=ago)), bounds, calls, NOW).replicas == after


def test_without_reports_the_number_stays() -> None:
    before = Size(replicas=3, busy=LONG_AGO)
    assert resize(before, BOUNDS, None, NOW) == before


def test_a_status_without_a_time_waits_a_cool_down() -> None:
    found = resize(Size(replicas=3, busy=None), BOUNDS, 0, NOW)
    assert (found.replicas, found.busy) == (3, NOW)


bounds = st.builds(
    lambda low, more, target, cooldown: Bounds(low=low, high=max(1, low + more), target=target, cooldown=cooldown),
    st.integers(0, 5), st.integers(0, 20), st.integers(1, 50), st.integers(5, 600),
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(bounds, st.integers(0, 30), st.integers(0, 2000))
def test_a_load_that_stays_the_same_changes_the_number_in_one_direction_and_then_never_again(
    bounds: Bounds, start: int, calls: int
) -> None:
    size, sizes = Size(replicas=start, busy=NOW), [start]
    for step in range(60):
        size = resize(size, bounds, calls, NOW + timedelta(seconds=step * (bounds.cooldown + 1)))
        sizes.append(size.replicas)
        assert bounds.low <= size.replicas <= bounds.high
    changes = [b - a for a, b in pairwise(sizes[1:]) if a != b]
    assert all(each > 0 for each in changes) or all(each < 0 for each in changes)
    assert len(set(sizes[-40:])) == 1
    assert calls <= size.replicas * bounds.target * 1.1 or size.replicas == bounds.high


@settings(max_examples=300, deadline=None)
@given(bounds, st.lists(st.tuples(st.integers(0, 200), st.integers(0, 30)), max_size=60))
def test_pods_that_were_needed_a_moment_ago_stay(bounds: Bounds, story: list[tuple[int, int]]) -> None:
    """Whatever the load does: between a change and the next one downwards lies (nearly) a whole cool-down."""
    now, size = NOW, Size(replicas=bounds.low, busy=NOW)
    changed = NOW
    for calls, seconds in story:
        now += timedelta(seconds=seconds)
        after = resize(size, bounds, calls, now)
        if after.replicas < size.replicas:
            assert (now - changed).total_seconds() >= bounds.cooldown
        if after.replicas != size.replicas:
            changed = now
        size = after
