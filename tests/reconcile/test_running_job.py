# ruff: noqa: E501 -- a table: one situation a row
"""A job whose pods are wanted: what keeps them from running, how far they are, and what happens when they fail."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest
from pinnace_operator.reconcile.plan import OperatorSettings, Plan

from e2e.simulation.case import Case
from e2e.simulation.objects import (
    NOW,
    OUTPUT,
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
    waiting,
    warning,
)

DONE = ended(0, message=outcome(0, "Completed", output=OUTPUT, step=100))

CASES = [
    # ---- waiting for pods
    Case(
        name="no pods yet", job=sftjob(status=started()), facts={"jobset": jobset()}, state="Pending", reason="Starting",
    ),
    Case(
        name="preflight runs", job=sftjob(status=started()),
        facts={"jobset": jobset(), "pods": (pod(phase="Pending", init={"running": {}}),)},
        state="Pending", reason="Starting", says=("Checking storage",),
    ),
    Case(
        name="one of two pods runs", job=sftjob(status=started(), trainer={"device": "cpu", "nodes": 2}, training={"globalBatchSize": 4}),
        facts={"jobset": jobset(), "pods": (pod(), pod(1, phase="Pending"))}, state="Pending", reason="Starting", says=("1 of 2",),
    ),
    Case(
        name="no node fits, at first", job=sftjob(status=started()),
        facts={"jobset": jobset(), "pods": (pod(phase="Pending", conditions=(
            {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "lastTransitionTime": at(-100),
             "message": "0/3 nodes are available: 3 Insufficient memory."},)),)},
        state="Pending", reason="Unschedulable", says=("3 Insufficient memory", "add a node"), requeue=200,
    ),
    Case(
        name="no node fits for long", job=sftjob(status=started()),
        facts={"jobset": jobset(), "pods": (pod(phase="Pending", conditions=(
            {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "lastTransitionTime": at(-301),
             "message": "0/3 nodes are available."},)),)},
        state="Stalled", reason="Unschedulable", says=("0/3 nodes",),
    ),
    Case(
        name="the image can't be pulled", job=sftjob(status=started()),
        facts={
            "jobset": jobset(),
            "pods": (pod(phase="Pending", init=waiting("ImagePullBackOff", "Back-off pulling image")),),
            "warnings": (warning("Failed", "old", seconds=-9), warning("Failed", "manifest unknown")),
        },
        state="Stalled", reason="ImagePullFailed", says=("pinnace/trainer", "manifest unknown", "imagePullSecrets"),
    ),
    Case(
        name="a Secret of the pods is missing", job=sftjob(status=started()),
        facts={"jobset": jobset(), "pods": (pod(phase="Pending", init=waiting("CreateContainerConfigError", 'secret "wandb" not found')),)},
        state="Stalled", reason="PodConfigInvalid", says=('secret "wandb" not found', "create it"),
    ),
    Case(
        name="a ConfigMap of the pods is missing", job=sftjob(status=started()),
        facts={
            "jobset": jobset(), "pods": (pod(phase="Pending"),),
            "warnings": (warning("FailedMount", 'configmap "data" not found'),),
        },
        state="Stalled", reason="PodConfigInvalid", says=('configmap "data" not found',),
    ),
    Case(
        name="the namespace's quota refuses the pods", job=sftjob(status=started()),
        facts={"jobset": jobset(), "warnings": (warning("FailedCreate", "exceeded quota: pods=2", about="job-trainer-0"),)},
        state="Stalled", reason="PodRejected", says=("exceeded quota",),
    ),
    # ---- running
    Case(
        name="a running job shows its progress", job=sftjob(status=started()),
        facts={"jobset": jobset(), "pods": (pod(),), "progress": report(checkpoint=checkpoint()), "progress_time": NOW},
        state="Running", reason="Running", requeue=3600,
        status={"checkpoint": checkpoint(), "pending": None, "progress": {
            "step": 50, "totalSteps": 100, "percent": 50, "etaSeconds": 120, "throughput": "812 tokens/s",
        }},
    ),
    Case(
        name="no step for an hour", job=sftjob(status=started()),
        facts={"jobset": jobset(), "pods": (pod(),), "progress": report(), "progress_time": NOW - timedelta(hours=2)},
        state="Stalled", reason="NoProgress", says=("7200 s", "restart from the newest checkpoint"),
        conditions={"Progressing": "True"},
    ),
    Case(
        name="the operator was told to be patient", job=sftjob(status=started()),
        facts={"jobset": jobset(), "pods": (pod(),), "progress": report(), "progress_time": NOW - timedelta(days=2),
               "settings": OperatorSettings(no_progress_seconds=0)},
        state="Running", reason="Running",
    ),
    Case(
        name="a report of an older attempt is no sign of a hang", job=sftjob(status=started(attempt=1)),
        facts={"jobset": jobset(restarts=1), "pods": (pod(restart=1),), "progress": report(),
               "progress_time": NOW - timedelta(days=2)},
        state="Running", reason="Running",
    ),
    Case(
        name="one pod has ended well, the other goes on",
        job=sftjob(status=started(), trainer={"device": "cpu", "nodes": 2}, training={"globalBatchSize": 4}),
        facts={"jobset": jobset(), "pods": (pod(phase="Succeeded", trainer=DONE), pod(1))}, state="Running", reason="Running",
    ),
    Case(
        name="the trainer ended well and the pod's phase does not say so yet", job=sftjob(status=started()),
        facts={"jobset": jobset(), "pods": (pod(trainer=DONE),)}, state="Running", reason="Running",
    ),
    Case(
        name="what cured itself is no longer stalled",
        job=sftjob(status=started(condition("Stalled", reason="ImagePullFailed"))),
        facts={"jobset": jobset(), "pods": (pod(),)}, state="Running", reason="Running", conditions={"Stalled": "False"},
    ),
    Case(
        name="labels that someone removed come back", job=sftjob(status=started()),
        facts={"jobset": jobset(labels={"pinnace.dev/name": "other"}), "pods": (pod(),)},
        state="Running", reason="Running", creates=True,
    ),
    # ---- failures that are retried
    Case(
        name="a pod failed and the JobSet has yet to react", job=sftjob(status=started()),
        facts={"jobset": jobset(), "pods": (pod(phase="Failed", trainer=ended(137, reason="OOMKilled")),)},
        state="Pending", reason="Restarting", says=("OutOfMemory",),
    ),
    Case(
        name="the next attempt starts", job=sftjob(status=started()),
        facts={"jobset": jobset(restarts=1), "pods": (pod(restart=1, phase="Pending"),)},
        state="Pending", reason="Restarting", says=("Attempt 2",), status={"restarts": 1, "attempt": 1},
    ),
    Case(
        name="a restart after a checkpoint does not count", job=sftjob(status=started()),
        facts={"jobset": jobset(restarts=2, counted=0), "pods": (pod(restart=2),)},
        state="Running", reason="Running", status={"restarts": 0, "attempt": 2},
    ),
    Case(
        name="the JobSet was deleted by hand", job=sftjob(status=started(attempt=3, restarts=2)),
        state="Pending", reason="Starting", creates=True, status={"attempt": 4, "restarts": 2},
    ),
    Case(
        name="the JobSet was deleted but its pods are there", job=sftjob(status=started()), facts={"pods": (pod(deleting=True),)},
        state="Pending", reason="Restarting", says=("job-trainer-0-0-x",), requeue=10,
    ),
    Case(
        name="the JobSet is being deleted", job=sftjob(status=started()), facts={"jobset": jobset(deleting=True), "pods": (pod(),)},
        state="Pending", reason="Restarting",
    ),
    Case(
        name="pods of an old JobSet that have ended don't matter", job=sftjob(status=started()),
        facts={"pods": (pod(phase="Failed", trainer=ended(85)),)}, state="Pending", reason="Starting", creates=True,
    ),
    Case(
        name="backoffLimit was raised in time", job=sftjob(backoffLimit=5, status=started(restarts=3)),
        facts={"jobset": jobset(counted=3, restarts=3, ended="Failed", reason="ReachedMaxRestarts"),
               "pods": (pod(restart=3, phase="Failed", trainer=ended(1)),)},
        state="Pending", reason="Restarting", prunes=True, status={"restarts": 4},
    ),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_situation(case: Case, decide: Callable[..., Plan]) -> None:
    case.check(decide(case.job, **case.facts))
