# ruff: noqa: E501 -- a table: one situation a row
"""Suspension, deadline, the end, and what is left after it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from pinnace_operator.reconcile.plan import Plan

from e2e.simulation.case import Case
from e2e.simulation.objects import (
    OUTPUT,
    RUN,
    at,
    checkpoint,
    condition,
    ended,
    jobset,
    outcome,
    pod,
    report,
    sftjob,
    started,
)

DONE = ended(0, message=outcome(0, "Completed", output=OUTPUT, step=100))
COMPLETE = started(condition("Complete", reason="Completed"), completionTime=at(-100), output=OUTPUT)
FAILED = started(condition("Failed", reason="Diverged"), completionTime=at(-100))

CASES = [
    # ---- suspension
    Case(
        name="suspend deletes the JobSet", job=sftjob(suspend=True, status=started()),
        facts={"jobset": jobset(), "pods": (pod(),)}, state="Suspended", reason="Suspending", prunes=True,
        status={"activeSeconds": 600},
    ),
    Case(
        name="suspending goes on until the pods are gone", job=sftjob(suspend=True, status=started(condition("Suspended"))),
        facts={"jobset": jobset(deleting=True), "pods": (pod(deleting=True),)}, state="Suspended", reason="Suspending",
    ),
    Case(
        name="suspended tells from where it will go on",
        job=sftjob(suspend=True, status=started(condition("Suspended"), checkpoint=checkpoint())),
        state="Suspended", reason="Suspended", says=("step 40",),
    ),
    Case(
        name="what the pods said when they were suspended counts", job=sftjob(suspend=True, status=started(condition("Suspended"))),
        facts={"jobset": jobset(deleting=True), "pods": (
            pod(phase="Failed", deleting=True, trainer=ended(85, message=outcome(85, "Checkpointed", checkpoint=checkpoint(60)))),)},
        state="Suspended", reason="Suspending", status={"checkpoint": checkpoint(60), "lastFailure": None},
    ),
    Case(
        name="resume makes a new JobSet", job=sftjob(status=started(condition("Suspended"), attempt=0, activeSeconds=77)),
        state="Pending", reason="Starting", creates=True, status={"attempt": 1, "activeSeconds": 77},
        conditions={"Suspended": "False"},
    ),
    # ---- deadline
    Case(
        name="the deadline passes", job=sftjob(activeDeadlineSeconds=600, status=started()),
        facts={"jobset": jobset(), "pods": (pod(),)}, state="Failed", reason="DeadlineExceeded", prunes=True,
        says=("600 s", "latest checkpoint"), status={"completionTime": at(0), "activeSeconds": 600},
    ),
    Case(
        name="time in suspension does not count",
        job=sftjob(activeDeadlineSeconds=100, status=started(condition("Suspended", "False", seconds=-20), activeSeconds=70)),
        facts={"jobset": jobset(), "pods": (pod(),)}, state="Running", reason="Running", requeue=10,
    ),
    # ---- the end
    Case(
        name="a job completes", job=sftjob(status=started()),
        facts={"jobset": jobset(ended="Completed"), "pods": (pod(phase="Succeeded", trainer=DONE),), "progress": report(99)},
        state="Complete", reason="Completed", says=(OUTPUT["uri"],),
        status={"output": OUTPUT, "completionTime": at(0), "progress": {
            "step": 100, "totalSteps": 100, "percent": 100, "etaSeconds": 0, "throughput": "812 tokens/s",
        }},
    ),
    Case(
        name="only rank 0 tells the output",
        job=sftjob(status=started(), trainer={"device": "cpu", "nodes": 2}, training={"globalBatchSize": 4}),
        facts={"jobset": jobset(ended="Completed"), "pods": (
            pod(1, phase="Succeeded", trainer=ended(0, message=outcome(0, "Completed", output={**OUTPUT, "uri": f"{RUN}/wrong"}))),
            pod(phase="Succeeded", trainer=DONE))},
        state="Complete", reason="Completed", status={"output": OUTPUT},
    ),
    Case(
        name="a job that completed while it was being suspended", job=sftjob(suspend=True, status=started()),
        facts={"jobset": jobset(ended="Completed", deleting=True), "pods": (pod(phase="Succeeded", trainer=DONE),)},
        state="Complete", reason="Completed",
    ),
    Case(
        name="the result is not visible yet", job=sftjob(status=started()), facts={"jobset": jobset(ended="Completed")},
        state="Running", reason="Running", requeue=25,
    ),
    Case(
        name="there is no result", job=sftjob(status=started()), facts={"jobset": jobset(ended="Completed", seconds=-31)},
        state="Failed", reason="OutputMissing", says=("create the job again",),
    ),
    Case(
        name="too many failures", job=sftjob(backoffLimit=2, status=started()),
        facts={"jobset": jobset(restarts=2, ended="Failed", reason="ReachedMaxRestarts"),
               "pods": (pod(restart=2, phase="Failed", trainer=ended(137, reason="OOMKilled")),)},
        state="Failed", reason="BackoffLimitExceeded", says=("Failed 3 times", "OutOfMemory", "2Gi"), status={"restarts": 2},
    ),
    Case(
        name="the only failure that was allowed is named itself", job=sftjob(backoffLimit=0, status=started()),
        facts={"jobset": jobset(ended="Failed", reason="ReachedMaxRestarts"),
               "pods": (pod(phase="Failed", trainer=ended(137, reason="OOMKilled")),)},
        state="Failed", reason="OutOfMemory",
    ),
    Case(
        name="the last words are waited for", job=sftjob(status=started()),
        facts={"jobset": jobset(ended="Failed", reason="FailJobSetFailurePolicyAction")},
        state="Pending", reason="Restarting", says=("last words",), requeue=25,
    ),
    Case(
        name="there were no last words", job=sftjob(status=started()),
        facts={"jobset": jobset(ended="Failed", reason="FailJobSetFailurePolicyAction", seconds=-31)},
        state="Failed", reason="TrainerFailed",
    ),
    # ---- after the end
    Case(
        name="complete stays complete", job=sftjob(status=COMPLETE), state="Complete", reason="Running",
        status={"output": OUTPUT},
    ),
    Case(
        name="complete stays complete when its JobSet is gone and suspend is set", job=sftjob(suspend=True, status=COMPLETE),
        state="Complete", reason="Running",
    ),
    Case(name="failed stays failed", job=sftjob(status=FAILED), facts={"jobset": jobset(ended="Failed")}, state="Failed", reason="Running"),
    Case(
        name="pods that run after the end are stopped", job=sftjob(status=FAILED), facts={"jobset": jobset(), "pods": (pod(),)},
        state="Failed", reason="Running", prunes=True,
    ),
    Case(
        name="a finished JobSet lives its time", job=sftjob(ttlSecondsAfterFinished=150, status=COMPLETE),
        facts={"jobset": jobset(ended="Completed")}, state="Complete", reason="Running", requeue=50,
    ),
    Case(
        name="a finished JobSet goes after its time", job=sftjob(ttlSecondsAfterFinished=100, status=COMPLETE),
        facts={"jobset": jobset(ended="Completed")}, state="Complete", reason="Running", prunes=True,
    ),
    Case(
        name="a finished JobSet without a time stays", job=sftjob(status=COMPLETE), facts={"jobset": jobset(ended="Completed")},
        state="Complete", reason="Running",
    ),
    Case(
        name="a stranger's JobSet is not pruned after the end", job=sftjob(status=FAILED), facts={"jobset": jobset(owner=None)},
        state="Failed", reason="Running",
    ),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_situation(case: Case, decide: Callable[..., Plan]) -> None:
    case.check(decide(case.job, **case.facts))
