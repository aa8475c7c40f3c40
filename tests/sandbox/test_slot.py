"""A pod's place for one lease: the transitions that no test with containers can time."""

from __future__ import annotations

import pytest
from pinnace.tools.sandbox.lease import Lease, NotFree, NotHeld, Slot, State

_LEASE = Lease.model_validate({"id": "a", "tokenSha256": "0" * 64, "expiresAt": 1000, "idleSeconds": 60})


def _armed(*, at: float) -> Slot:
    slot = Slot()
    slot.freed()
    slot.reserve(_LEASE, at)
    slot.state = State.ARMED
    return slot


@pytest.mark.parametrize("state", [state for state in State if state is not State.FREE])
def test_only_a_free_pod_takes_a_lease(state: State) -> None:
    slot = Slot()
    slot.freed(state)
    with pytest.raises(NotFree, match=state):
        slot.reserve(_LEASE, 0)


@pytest.mark.parametrize(
    ("now", "in_flight", "ends"),
    [
        (500, 0, None),
        (559, 0, None),
        (560, 0, "nobody used it for 60 s"),
        (560, 1, None),
        (1000, 1, "it expired"),
    ],
)
def test_a_lease_ends_by_time_or_idleness_but_not_while_it_works(now: float, in_flight: int, ends: str | None) -> None:
    slot = _armed(at=500)
    slot.in_flight = in_flight
    assert slot.due(now) == ends


def test_a_lease_that_is_not_armed_is_not_held() -> None:
    slot = Slot()
    slot.freed()
    slot.reserve(_LEASE, 0)
    with pytest.raises(NotHeld):
        slot.hold("a")
    slot.state = State.ARMED
    assert slot.hold("a") is _LEASE
    with pytest.raises(NotHeld):
        slot.hold("b")


def test_the_executors_end_is_told_to_the_owner_and_frees_nothing_that_is_spent() -> None:
    slot = _armed(at=500)
    slot.executor_lost("gone")
    assert slot.describe()["lost"] == "gone"
    assert slot.state is State.ARMED
    slot.freed(State.SPENT)
    slot.executor_lost("gone")
    assert slot.state is State.SPENT
    slot.freed(State.FREE)
    slot.executor_lost("gone")
    assert slot.state is State.STARTING


def test_a_pod_whose_sandbox_ended_three_times_takes_no_further_lease() -> None:
    slot = _armed(at=500)
    for _ in range(3):
        slot.executor_lost("gone")
    assert slot.state is State.ARMED, "its owner may still hear of it"
    slot.freed()
    assert slot.state is State.SPENT
