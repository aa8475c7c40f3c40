"""One writer at a time, whatever the clocks say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from pinnace_operator.runtime.kube_errors import Conflict, NotLeader
from pinnace_operator.runtime.lease import Election


class Clock:
    def __init__(self, start: float) -> None:
        self.now = start

    def __call__(self) -> float:
        return self.now


class Leases:
    """One Lease with compare-and-swap, as the API server keeps it."""

    def __init__(self) -> None:
        self.lease: dict[str, Any] | None = None
        self.version = 0

    async def get_lease(self, namespace: str, name: str) -> dict[str, Any] | None:
        return self.lease

    async def create_lease(self, manifest: Mapping[str, Any]) -> dict[str, Any]:
        if self.lease:
            raise Conflict("POST", "exists", status=409)
        return self._store(manifest)

    async def replace_lease(self, manifest: Mapping[str, Any]) -> dict[str, Any]:
        if not self.lease or manifest["metadata"]["resourceVersion"] != self.lease["metadata"]["resourceVersion"]:
            raise Conflict("PUT", "modified", status=409)
        return self._store(manifest)

    def _store(self, manifest: Mapping[str, Any]) -> dict[str, Any]:
        self.version += 1
        self.lease = {
            **manifest,
            "metadata": {**manifest["metadata"], "uid": "u", "resourceVersion": str(self.version)},
        }
        return self.lease


def replica(leases: Leases, name: str, clock: Clock) -> Election:
    return Election(
        leases, namespace="system", name="pinnace", identity=name, duration=15, margin=5, period=2, clock=clock
    )


async def test_the_second_replica_takes_over_only_after_the_lease_went_unrenewed_for_its_duration() -> None:
    leases, clock = Leases(), Clock(0)
    first, second = replica(leases, "first", clock), replica(leases, "second", clock)
    await first.step()
    await second.step()
    assert (first.leads(), second.leads()) == (True, False)
    clock.now = 14.9
    await second.step()
    assert not second.leads()
    clock.now = 15.1
    await second.step()
    assert second.leads()
    assert second.transitions == 1


async def test_a_frozen_leader_wakes_up_fenced_before_anyone_else_may_lead() -> None:
    leases, clock = Leases(), Clock(0)
    frozen, other = replica(leases, "frozen", clock), replica(leases, "other", clock)
    await frozen.step()
    await other.step()
    clock.now = 10.1  # duration less margin
    with pytest.raises(NotLeader):
        frozen.fence()
    await other.step()
    assert not other.leads(), "between the two nobody writes"


async def test_a_woken_leader_does_not_take_back_what_another_holds() -> None:
    leases, clock = Leases(), Clock(0)
    frozen, other = replica(leases, "frozen", clock), replica(leases, "other", clock)
    await frozen.step()
    await other.step()
    clock.now = 16
    await other.step()
    await frozen.step()
    assert (frozen.leads(), other.leads()) == (False, True)


@pytest.mark.parametrize("skew", [-86_400.0, -30.0, 30.0, 86_400.0])
async def test_clocks_that_differ_make_no_second_leader(skew: float) -> None:
    leases = Leases()
    ours, theirs = Clock(100_000), Clock(100_000 + skew)
    leader, follower = replica(leases, "leader", ours), replica(leases, "follower", theirs)
    await leader.step()
    for _ in range(30):
        ours.now += 2
        theirs.now += 2
        await leader.step()
        await follower.step()
        assert (leader.leads(), follower.leads()) == (True, False)


async def test_a_renewal_that_lost_the_race_does_not_extend_the_lease() -> None:
    leases, clock = Leases(), Clock(0)
    leader = replica(leases, "leader", clock)
    await leader.step()
    clock.now = 9

    class Racing(Leases):
        async def replace_lease(self, manifest: Mapping[str, Any]) -> dict[str, Any]:
            raise Conflict("PUT", "modified", status=409)

    racing = Racing()
    racing.lease = leases.lease
    leader._client = racing
    with pytest.raises(Conflict):
        await leader.step()
    clock.now = 10.1
    assert not leader.leads()


async def test_a_released_lease_is_taken_over_at_once() -> None:
    leases, clock = Leases(), Clock(0)
    first, second = replica(leases, "first", clock), replica(leases, "second", clock)
    await first.step()
    await second.step()
    await first.release()
    assert not first.leads()
    await second.step()
    assert second.leads()


async def test_a_restarted_process_waits_although_its_pod_has_the_same_name() -> None:
    leases, clock = Leases(), Clock(0)
    await replica(leases, "pod_1", clock).step()
    again = replica(leases, "pod_2", clock)
    await again.step()
    assert not again.leads()
