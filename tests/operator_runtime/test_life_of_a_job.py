"""From an SFTJob to its JobSet and back to the status, on the real API server."""

from __future__ import annotations

from e2e.faults.api import EVENTS, JOBSETS, SFTJOBS, eventually
from e2e.faults.cluster import Hands
from e2e.faults.operator_process import OperatorProcess
from e2e.faults.proxy import FaultProxy


def test_a_job_runs_to_its_end(operator: OperatorProcess, hands: Hands) -> None:
    job = hands.submit("tiny")
    jobset = hands.wait_jobset("tiny")
    owner = jobset["metadata"]["ownerReferences"][0]
    assert (owner["uid"], owner["controller"]) == (job["metadata"]["uid"], True)
    hands.complete("tiny")
    hands.assert_complete("tiny")


def test_an_unchanged_job_is_not_written_again(operator: OperatorProcess, hands: Hands, proxy: FaultProxy) -> None:
    hands.submit("tiny")
    hands.complete("tiny")
    hands.assert_complete("tiny")
    written, passes = len(proxy.writes), operator.metric("pinnace_reconcile_seconds_count")
    eventually("two resyncs more", lambda: operator.metric("pinnace_reconcile_seconds_count") >= passes + 2)
    assert len(proxy.writes) == written


def test_the_operator_writes_only_children_events_status_and_its_own_objects(
    operator: OperatorProcess, hands: Hands, proxy: FaultProxy
) -> None:
    hands.submit("tiny")
    hands.complete("tiny")
    hands.assert_complete("tiny")
    job = hands.job("tiny")
    assert job
    assert set(job["metadata"].get("annotations") or {}) == set()
    assert not job["metadata"].get("finalizers")
    allowed = (JOBSETS, EVENTS, SFTJOBS)
    paths = {write.call.path for write in proxy.writes if "/secrets" not in write.call.path}
    assert all(path.startswith(tuple(each.format(hands.namespace) for each in allowed)) for path in paths)
    assert {path for path in paths if "sftjobs" in path} == {f"{SFTJOBS.format(hands.namespace)}/tiny/status"}


def test_a_job_that_waits_for_another_is_woken_by_it(operator: OperatorProcess, hands: Hands) -> None:
    hands.submit("second", model={"from": {"kind": "SFTJob", "name": "first"}})
    eventually("second is seen", lambda: (hands.job("second") or {}).get("status"))
    hands.submit("first")
    assert hands.jobset("second") is None
    hands.complete("first")
    hands.assert_complete("first")
    hands.complete("second")
    hands.assert_complete("second")


def test_sigterm_ends_it_at_once_and_hands_the_lease_over(
    operator: OperatorProcess, start: object, proxy: FaultProxy, hands: Hands
) -> None:
    assert operator.stop() == 0
    lease = hands.lease()
    assert lease and lease["spec"]["holderIdentity"] == ""
