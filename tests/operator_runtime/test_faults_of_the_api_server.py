"""What the operator survives when the API server, or the way to it, misbehaves."""

from __future__ import annotations

import pytest

from e2e.apiserver import ApiServer
from e2e.faults.api import eventually
from e2e.faults.cluster import Hands
from e2e.faults.operator_process import OperatorProcess, Record, Start
from e2e.faults.proxy import Call, FaultProxy


def test_dropped_watches_are_opened_again_and_nothing_is_missed(
    start: Start, proxy: FaultProxy, hands: Hands, record: Record
) -> None:
    operator = start(proxy, RESYNC_PERIOD="600")  # so that the resync can't be what heals it
    operator.wait_ready()
    operator.wait_leads()
    dropped = 0
    for number in range(3):
        name = f"drop-{number}"
        dropped += proxy.drop_watches()
        hands.submit(name)
        hands.wait_jobset(name)
        dropped += proxy.drop_watches()
        hands.complete(name)
        dropped += proxy.drop_watches()
        hands.assert_complete(name)
    assert dropped >= 6
    record("watches dropped", drops=dropped, jobs=3)


def test_what_vanished_in_the_gap_before_a_410_leaves_no_ghost(
    operator: OperatorProcess, proxy: FaultProxy, hands: Hands, record: Record
) -> None:
    hands.submit("vanishes")
    hands.wait_jobset("vanishes")
    blind = proxy.fail(500, lambda call: call.watch)
    proxy.drop_watches()
    hands.delete_job("vanishes")  # nobody collects garbage here: only the operator's own pruning can
    hands.submit("appears")
    gone = proxy.fail(410, lambda call: call.watch, count=3)
    proxy.faults.remove(blind)
    hands.complete("appears")
    hands.assert_complete("appears")
    eventually("the ghost is gone", lambda: [each["metadata"]["name"] for each in hands.jobsets()] == ["appears"])
    eventually("410 was answered", lambda: gone.hits == 3)
    record(
        "410 with deletions in the gap",
        answered_410=gone.hits,
        ghosts_pruned=int(operator.metric("pinnace_ghosts_pruned_total")),
    )


@pytest.mark.parametrize("status", [409, 429, 500])
def test_storms_delay_but_lose_nothing(
    operator: OperatorProcess, proxy: FaultProxy, hands: Hands, record: Record, status: int
) -> None:
    def hit(call: Call) -> bool:
        return call.is_write if status == 409 else not call.watch

    fault = proxy.fail(status, hit, share=0.25, retry_after=0 if status == 429 else None)
    names = [f"storm-{number}" for number in range(3)]
    for name in names:
        hands.submit(name)
    for name in names:
        hands.complete(name)
    for name in names:
        eventually(f"{name} is complete in the storm", lambda name=name: hands.state(name) == "Complete", 60)
    proxy.heal()
    for name in names:
        hands.assert_complete(name)
    assert fault.hits >= 5
    record(f"{status} storm on 25 % of requests", injected=fault.hits, jobs=3)


def test_a_429_is_obeyed(operator: OperatorProcess, proxy: FaultProxy, hands: Hands) -> None:
    fault = proxy.fail(429, lambda call: call.is_write and "jobsets" in call.path, count=1, retry_after=1)
    hands.submit("patient")
    hands.wait_jobset("patient")
    assert fault.hits == 1
    assert "again in 1.0 s" in operator.tail(20_000)


def test_connections_that_break_after_the_write_do_not_write_twice(
    operator: OperatorProcess, proxy: FaultProxy, hands: Hands, record: Record
) -> None:
    def cut(number: int) -> None:
        if number in (1, 2, 3):
            raise ConnectionResetError("the answer is lost")

    proxy.writes.clear()
    proxy.after = cut
    hands.submit("cut")
    hands.complete("cut")
    hands.assert_complete("cut")
    record("answer of a write lost", lost=3)


@pytest.mark.parametrize("program", ["etcd", "kube-apiserver"])
def test_a_restart_of_the_control_plane_is_survived(
    operator: OperatorProcess, apiserver: ApiServer, hands: Hands, record: Record, program: str
) -> None:
    hands.submit("before")
    jobset = hands.wait_jobset("before")
    apiserver.stop(program)
    if program == "etcd":
        apiserver.start_etcd()
    else:
        apiserver.start_apiserver()
    apiserver.wait_ready()
    eventually("the server answers", hands.answers)
    hands.submit("after")
    hands.complete("before")
    hands.complete("after")
    hands.assert_complete("before")
    hands.assert_complete("after")
    assert hands.jobset("before")["metadata"]["uid"] == jobset["metadata"]["uid"]  # type: ignore[index]
    record(f"{program} killed and restarted", jobs=2)


def test_liveness_fails_while_no_watch_hears_anything_and_recovers(
    start: Start, proxy: FaultProxy, hands: Hands
) -> None:
    operator = start(proxy, LIVENESS_WATCH_AGE="2")
    operator.wait_ready()
    proxy.fail(500, lambda call: call.watch or "limit=500" in call.path)
    proxy.fail(503, lambda call: call.method == "GET" and call.path.endswith(("/sftjobs", "/pods", "/jobsets")))
    proxy.drop_watches()
    eventually("not alive", lambda: operator.probe("/healthz") == 503)
    proxy.heal()
    eventually("alive again", lambda: operator.probe("/healthz") == 200, 60)
