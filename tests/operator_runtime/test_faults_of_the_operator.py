"""Operators that are killed, frozen, skewed or doubled: one writer, one gang, no ghost."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import threading
from pathlib import Path

import pytest

from e2e.apiserver import ApiServer
from e2e.faults.api import eventually
from e2e.faults.cluster import Hands
from e2e.faults.operator_process import OperatorProcess, Record, Start
from e2e.faults.proxy import FaultProxy, fault_proxy

SKEW = Path(__file__).parents[2] / "e2e/faults/skew.c"


def drive(operator: OperatorProcess, hands: Hands, name: str) -> int:
    """Run a job to its end, starting the operator again whenever it is dead; how often that was."""
    errors: list[BaseException] = []

    def live() -> None:
        try:
            hands.complete(name)
            eventually(f"{name} is complete", lambda: hands.state(name) == "Complete", 60)
        except BaseException as error:
            errors.append(error)
            raise

    hands.submit(name)
    thread = threading.Thread(target=live, daemon=True)
    thread.start()
    restarts = 0
    while thread.is_alive():
        restarts += revive(operator, hands)
        thread.join(0.05)
    assert not errors, f"{errors[0]}\n{operator.tail()}"
    return restarts


def revive(operator: OperatorProcess, hands: Hands) -> int:
    """Start the operator again if it is dead, as if its Lease had run out; 1 if it was."""
    if operator.process is None or operator.process.poll() is None:
        return 0
    hands.delete_lease()
    operator.start()
    return 1


def dies(operator: OperatorProcess, fired: list[int]) -> bool:
    """Whether the kill came, also one at the last write, which completes the job and may be answered a moment later."""
    seen = operator.metric("pinnace_reconcile_seconds_count")
    eventually(
        "a kill, or reconciles that write nothing",
        lambda: fired or operator.metric("pinnace_reconcile_seconds_count") >= seen + 3,
    )
    return bool(fired)


@pytest.mark.parametrize("moment", ["before", "after"])
def test_killed_at_every_write_of_a_job_it_goes_on_as_if_nothing_was(
    operator: OperatorProcess, proxy: FaultProxy, hands: Hands, record: Record, moment: str
) -> None:
    eventually("the CA is stored, which is no write of a job", hands.ca)
    kills = 0
    for target in itertools.count(1):
        fired: list[int] = []

        def kill(number: int, target: int = target, fired: list[int] = fired) -> bool:
            if number == target and not fired and operator.process:
                fired.append(number)
                os.kill(operator.process.pid, signal.SIGKILL)
                return False
            return True

        proxy.writes.clear()
        if moment == "before":
            proxy.before = kill
        else:
            proxy.after = kill
        name = f"kill-{moment}-{target}"
        restarts = drive(operator, hands, name)
        if not dies(operator, fired):
            break  # a whole life went by without that many writes: each of them had its kill
        restarts = restarts or eventually("it is dead", lambda: revive(operator, hands))
        proxy.before, proxy.after = lambda _number: True, lambda _number: None
        assert restarts == 1
        hands.assert_complete(name)
        kills += 1
    hands.assert_complete(name)
    assert kills >= 6, [str(write.call) for write in proxy.writes]
    record(f"killed -9 right {moment} each write of a job", kills=kills)


def test_a_leader_frozen_past_its_lease_never_writes_again_as_one(
    apiserver: ApiServer, start: Start, hands: Hands, tmp_path: Path, record: Record
) -> None:
    with fault_proxy(apiserver.kubeconfig, tmp_path) as first, fault_proxy(apiserver.kubeconfig, tmp_path) as second:
        frozen = start(first, "operator-frozen")
        frozen.wait_ready()
        frozen.wait_leads()
        heir = start(second, "operator-heir")
        heir.wait_ready()
        hands.submit("early")
        hands.wait_jobset("early")
        assert not second.writes, "the standby writes nothing"

        frozen.signal(signal.SIGSTOP)
        heir.wait_leads()
        hands.submit("late")
        hands.wait_jobset("late")
        written, asked = len(first.writes), first.requests
        frozen.signal(signal.SIGCONT)
        # Awake: it hears of `late` on its watches, which makes it want to write, and asks for its Lease.
        eventually("the woken one is at work again", lambda: first.requests >= asked + 6)
        eventually("it stands by", lambda: frozen.metric("pinnace_leader") == 0)
        hands.complete("early")
        hands.complete("late")
        hands.assert_complete("early")
        hands.assert_complete("late")
        assert len(first.writes) == written
        record("leader frozen past its Lease and woken", writes_by_the_woken=0, writes_by_the_heir=len(second.writes))

        heir.kill()
        frozen.wait_leads()
        hands.submit("later")
        hands.complete("later")
        hands.assert_complete("later")


@pytest.mark.parametrize("skew", [-7200, 7200])
def test_replicas_whose_clocks_differ_by_hours_do_not_lead_together(
    apiserver: ApiServer, start: Start, hands: Hands, tmp_path: Path, record: Record, skew: int
) -> None:
    library = tmp_path / "skew.so"
    subprocess.run(["gcc", "-shared", "-fPIC", "-O1", "-o", library, SKEW, "-ldl"], check=True)
    with fault_proxy(apiserver.kubeconfig, tmp_path) as first, fault_proxy(apiserver.kubeconfig, tmp_path) as second:
        leader = start(first, "operator-now")
        leader.wait_leads()
        other = start(
            second, "operator-skewed", environment={"LD_PRELOAD": str(library), "PINNACE_CLOCK_SKEW": str(skew)}
        )
        other.wait_ready()
        renewals = hands.lease_version()
        eventually("a whole Lease's time passed", lambda: hands.lease_version() >= renewals + 8)
        assert (leader.metric("pinnace_leader"), other.metric("pinnace_leader")) == (1, 0)
        hands.submit("here")
        hands.complete("here")
        hands.assert_complete("here")
        assert not second.writes
        leader.kill()
        other.wait_leads()
        hands.submit("there")
        hands.complete("there")
        hands.assert_complete("there")
        record(f"clock skew of {skew / 3600:+.0f} h between replicas", jobs=2, writes_by_the_standby=0)


def test_a_child_deleted_by_hand_comes_back_once(operator: OperatorProcess, hands: Hands, record: Record) -> None:
    hands.submit("child")
    first = hands.wait_jobset("child")
    hands.delete_jobset("child")
    second = eventually(
        "another JobSet",
        lambda: (j := hands.jobset("child")) and j["metadata"]["uid"] != first["metadata"]["uid"] and j,
    )
    assert second
    hands.complete("child")
    hands.assert_complete("child")
    record("child deleted by hand", deletions=1)


def test_a_job_deleted_while_its_child_is_created_leaves_nothing(
    operator: OperatorProcess, proxy: FaultProxy, hands: Hands, record: Record
) -> None:
    def delete(number: int) -> bool:
        if "jobsets" in proxy.writes[number - 1].call.path and hands.job("brief"):
            hands.delete_job("brief")
        return True

    proxy.before = delete
    hands.submit("brief")
    eventually(
        "the child was created", lambda: any("jobsets" in each.call.path and each.status for each in proxy.writes)
    )
    proxy.before = lambda _number: True
    eventually("no child is left", lambda: not hands.jobsets())
    record("job deleted in mid-creation", ghosts_pruned=int(operator.metric("pinnace_ghosts_pruned_total")))


def test_a_job_replaced_while_its_child_is_created_gets_a_child_of_its_own(
    operator: OperatorProcess, proxy: FaultProxy, hands: Hands, record: Record
) -> None:
    replaced: list[str] = []

    def replace(number: int) -> bool:
        if "jobsets" in proxy.writes[number - 1].call.path and not replaced:
            hands.delete_job("again")
            replaced.append(hands.submit("again")["metadata"]["uid"])
        return True

    proxy.before = replace
    hands.submit("again")

    def own_child() -> bool:
        hands.collect_garbage()
        jobset = hands.jobset("again")
        return bool(replaced and jobset and jobset["metadata"]["ownerReferences"][0]["uid"] == replaced[0])

    eventually("the second job has a child", own_child)
    hands.complete("again")
    hands.assert_complete("again")
    record("job replaced in mid-creation", replaced=1)
