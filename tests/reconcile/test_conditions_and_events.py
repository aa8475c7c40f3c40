"""What moves and what stays in conditions and events from one reconcile to the next."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest
from pinnace_operator.reconcile.plan import FINALIZER, Plan

from e2e.simulation.objects import NOW, Object, at, condition, jobset, pod, report, sftjob, started

LATER = NOW + timedelta(seconds=30)


def _by_type(plan: Plan) -> dict[str, Object]:
    return {each["type"]: each for each in plan.status["conditions"]}


def test_a_transition_time_moves_only_when_the_status_flips(decide: Callable[..., Plan]) -> None:
    first = decide(sftjob(status=started()), jobset=jobset(), pods=(pod(phase="Pending"),))
    assert _by_type(first)["Progressing"]["lastTransitionTime"] == at(0)
    waiting = decide(sftjob(status=dict(first.status)), jobset=jobset(), pods=(), now=LATER)
    assert _by_type(waiting)["Progressing"]["lastTransitionTime"] == at(0)
    running = decide(sftjob(status=dict(waiting.status)), jobset=jobset(), pods=(pod(),), now=LATER)
    assert _by_type(running)["Progressing"]["lastTransitionTime"] == at(30)


def test_every_condition_carries_the_generation_it_was_computed_from(decide: Callable[..., Plan]) -> None:
    plan = decide(sftjob(status=started(), meta={"generation": 7}), jobset=jobset(), pods=(pod(),))
    assert plan.status["observedGeneration"] == 7
    assert {each["observedGeneration"] for each in plan.status["conditions"]} == {7}


def test_a_status_that_is_true_already_is_not_changed_and_tells_no_event(decide: Callable[..., Plan]) -> None:
    facts = {"jobset": jobset(), "pods": (pod(),), "progress": report()}
    first = decide(sftjob(status=started()), **facts)
    again = decide(sftjob(status=dict(first.status)), **facts, now=LATER)
    assert (again.status, again.events) == (first.status, ())


def test_each_change_of_the_situation_is_an_event(decide: Callable[..., Plan]) -> None:
    plan = decide(sftjob())
    assert [(each.type, each.reason) for each in plan.events] == [("Normal", "Starting")]
    running = decide(sftjob(status=dict(plan.status)), jobset=jobset(), pods=(pod(),), now=LATER)
    assert [each.reason for each in running.events] == ["Running"]


def test_what_pods_report_becomes_events_with_stable_keys(decide: Callable[..., Plan]) -> None:
    told = [{"type": "Warning", "reason": "DamagedCheckpoint", "message": "step 40 was skipped"}]
    job, facts = sftjob(status=started()), {"jobset": jobset(), "pods": (pod(),), "progress": report(events=told)}
    first, again = decide(job, **facts), decide(job, **facts, now=LATER)
    assert [each.reason for each in first.events] == ["DamagedCheckpoint"]
    assert first.events == again.events


def test_a_status_from_another_version_is_read_as_far_as_it_goes(decide: Callable[..., Plan]) -> None:
    strange = started(
        condition("Complete", reason="Completed"), {"type": "Novel", "status": "True"}, novelty=1, restarts="x"
    )
    plan = decide(sftjob(status=strange))
    assert plan.status["state"] == "Complete"
    assert plan.children == ()


@pytest.mark.parametrize("policy", ["Retain", "Delete"])
def test_the_finalizer_is_there_only_for_those_who_asked(decide: Callable[..., Plan], policy: str) -> None:
    assert decide(sftjob(deletionPolicy=policy)).finalizer is (policy == "Delete")


DYING = {"deletionTimestamp": at(-1), "finalizers": [FINALIZER]}


def test_a_job_that_is_deleted_gets_no_children(decide: Callable[..., Plan]) -> None:
    plan = decide(sftjob(meta={"deletionTimestamp": at(-1)}))
    assert (plan.children, plan.prune, plan.finalizer) == ((), (), False)


def test_deleting_the_data_waits_for_the_pods(decide: Callable[..., Plan]) -> None:
    job = sftjob(meta=DYING, deletionPolicy="Delete", status=started())
    plan = decide(job, jobset=jobset(), pods=(pod(),))
    assert (len(plan.prune), plan.children, plan.finalizer) == (1, (), True)
    plan = decide(job, pods=(pod(deleting=True),))
    assert (plan.prune, plan.children, plan.finalizer) == ((), (), True)


def test_the_data_is_deleted_then_the_resource_goes(decide: Callable[..., Plan]) -> None:
    job = sftjob(meta=DYING, deletionPolicy="Delete", status=started())
    plan = decide(job)
    pods = plan.children[0]["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]
    assert [each["command"] for each in pods["containers"]] == [["pinnace", "cleanup"]]
    assert plan.finalizer
    assert decide(job, jobset=jobset(role="cleanup")).finalizer
    assert not decide(job, jobset=jobset(role="cleanup", ended="Completed")).finalizer


def test_data_that_can_not_be_deleted_is_said_and_tried_again(decide: Callable[..., Plan]) -> None:
    job = sftjob(meta=DYING, deletionPolicy="Delete", status=started())
    plan = decide(job, jobset=jobset(role="cleanup", ended="Failed", reason="ReachedMaxRestarts"))
    assert (plan.status["state"], plan.finalizer, plan.requeue_after) == ("Stalled", True, 295)
    assert "deletionPolicy to Retain" in _by_type(plan)["Stalled"]["message"]
    later = decide(job, jobset=jobset(role="cleanup", ended="Failed", seconds=-301))
    assert len(later.prune) == 1


@pytest.mark.parametrize("job", [
    sftjob(meta=DYING, deletionPolicy="Retain", status=started()),
    sftjob(meta=DYING, deletionPolicy="Delete"),
], ids=["the user changed their mind", "it never started"])  # fmt: skip
def test_a_finalizer_without_a_purpose_goes(decide: Callable[..., Plan], job: Object) -> None:
    plan = decide(job)
    assert (plan.finalizer, plan.children) == (False, ())
