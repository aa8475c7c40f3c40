# ruff: noqa: E501 -- a table: one situation a row
"""A job starts when its inputs, its spec and its queue allow it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from pinnace_operator.reconcile.plan import Plan

from e2e.simulation.case import Case
from e2e.simulation.objects import (
    DIGEST,
    OUTPUT,
    at,
    checkpoint,
    condition,
    jobset,
    pod,
    sftjob,
    started,
    workload,
)

ADMITTED = workload("QuotaReserved", "True", "QuotaReserved", "admitted")
NOT_ADMITTED = workload("QuotaReserved", "False", "Pending", "insufficient quota for cpu, 2 more needed")
EVICTED = workload("Evicted", "True", "Preempted", "a job of higher priority needs the quota")
FROM = {"from": {"kind": "SFTJob", "name": "first"}}
UPSTREAM = ("SFTJob", "first")
FIRST_DONE = sftjob("first", uid="u1", status=started(condition("Complete", reason="Completed"), output=OUTPUT))
FIRST_RUNS = sftjob("first", uid="u1", status=started(condition("Progressing"), progress={"step": 1, "percent": 3}))
FIRST_FAILED = sftjob(
    "first", uid="u1", status=started(condition("Failed", reason="Diverged"), checkpoint=checkpoint(80))
)
FAILED = started(condition("Failed", reason="Diverged"), completionTime=at(-100))

CASES = [
    # ---- start
    Case(
        name="a new job gets its JobSet", state="Pending", reason="Starting", creates=True,
        status={"startTime": at(0), "attempt": 0, "restarts": 0},
        conditions={"QuotaReserved": "True", "Suspended": "False"},
    ),
    Case(
        name="a new job that is suspended gets none", job=sftjob(suspend=True), state="Suspended", reason="Suspended",
        says=("Set it to false", "from the start"), status={"startTime": None},
    ),
    Case(
        name="a deadline is looked at when it comes", job=sftjob(activeDeadlineSeconds=60),
        state="Pending", reason="Starting", creates=True, requeue=60,
    ),
    Case(
        name="a JobSet of a stranger is not touched", facts={"jobset": jobset(owner=None)},
        state="Stalled", reason="ChildConflict", says=("delete or rename",), requeue=10,
    ),
    Case(
        name="a JobSet of a predecessor is waited for", facts={"jobset": jobset(owner="earlier-uid")},
        state="Pending", reason="Pending", says=("earlier SFTJob",), requeue=10,
    ),
    Case(
        name="the operator lacks rights",
        facts={"apply_error": 'PATCH /x: jobsets is forbidden: User "op" cannot patch resource "jobsets"'},
        state="Stalled", reason="PermissionDenied", says=("administrator",), status={"startTime": None},
    ),
    Case(
        name="the API server refuses the JobSet", facts={"apply_error": "PATCH /x: admission webhook denied: no GPUs here"},
        state="Stalled", reason="PodRejected", says=("no GPUs here",),
    ),
    # ---- inputs
    Case(
        name="an input that does not exist is waited for", job=sftjob(model=FROM), facts={"upstreams": {UPSTREAM: None}},
        state="Pending", reason="WaitingForInput", says=("SFTJob/first", "create it"),
    ),
    Case(
        name="an input that is being made is waited for", job=sftjob(model=FROM),
        facts={"upstreams": {UPSTREAM: FIRST_RUNS}}, state="Pending", reason="WaitingForInput", says=("Running", "3 %"),
    ),
    Case(
        name="an input that failed fails the job", job=sftjob(model=FROM), facts={"upstreams": {UPSTREAM: FIRST_FAILED}},
        state="Failed", reason="InputFailed", says=("SFTJob/first failed",),
    ),
    Case(
        name="an input that is there is pinned", job=sftjob(model=FROM), facts={"upstreams": {UPSTREAM: FIRST_DONE}},
        state="Pending", reason="Starting", creates=True,
        status={"inputs": [
            {"ref": "model: SFTJob/first", "uri": OUTPUT["uri"], "digest": DIGEST},
            {"ref": "data.train: builtin lookup, 256 samples, seed 0"},
        ]},
    ),
    Case(
        name="a pinned input outlives its resource", facts={"upstreams": {UPSTREAM: None}},
        job=sftjob(model=FROM, status=started(inputs=[{"ref": "model: SFTJob/first", "uri": OUTPUT["uri"], "digest": DIGEST}])),
        state="Pending", reason="Starting", creates=True,
    ),
    Case(
        name="the latest checkpoint of a failed job can be used",
        job=sftjob(model={"from": {"kind": "SFTJob", "name": "first", "checkpoint": "latest"}}),
        facts={"upstreams": {UPSTREAM: FIRST_FAILED}}, state="Pending", reason="Starting", creates=True,
    ),
    Case(
        name="a checkpoint of a running job is waited for",
        job=sftjob(model={"from": {"kind": "SFTJob", "name": "first", "checkpoint": "40"}}),
        facts={"upstreams": {UPSTREAM: FIRST_RUNS}}, state="Pending", reason="WaitingForInput", says=("to end",),
    ),
    Case(
        name="a job that ended without checkpoints has none to give",
        job=sftjob(model={"from": {"kind": "SFTJob", "name": "first", "checkpoint": "best"}}),
        facts={"upstreams": {UPSTREAM: sftjob("first", uid="u1", status=FAILED)}},
        state="Failed", reason="InputFailed", says=("checkpoint best",),
    ),
    # ---- spec
    Case(
        name="a spec that can't work", job=sftjob(training={"globalBatchSize": 3, "microBatchSize": 2}),
        state="Failed", reason="InvalidSpec", says=("globalBatchSize", "create the job again"),
    ),
    Case(
        name="a spec that can't be read, with pods", job=sftjob(nonsense=1, status=started()), facts={"jobset": jobset()},
        state="Failed", reason="InvalidSpec", says=("nonsense",), prunes=True,
    ),
    # ---- queue
    Case(
        name="a queued job waits for quota", job=sftjob(queueName="q", status=started()),
        facts={"jobset": jobset(suspend=True), "workload": NOT_ADMITTED}, state="Suspended", reason="QuotaPending",
        says=("2 more needed",), conditions={"QuotaReserved": "False", "Suspended": "True"},
    ),
    Case(
        name="an admitted job runs", job=sftjob(queueName="q", status=started()),
        facts={"jobset": jobset(), "workload": ADMITTED, "pods": (pod(),)}, state="Running", reason="Running",
        conditions={"QuotaReserved": "True"},
    ),
    Case(
        name="a job whose quota was taken back", job=sftjob(queueName="q", status=started()),
        facts={"jobset": jobset(suspend=True), "workload": EVICTED}, state="Suspended", reason="Preempted",
        says=("higher priority",), status={"activeSeconds": 600},
    ),
    Case(
        name="a JobSet that somebody suspended by hand", job=sftjob(status=started()), facts={"jobset": jobset(suspend=True)},
        state="Suspended", reason="Suspended", says=("kubectl patch jobset job",), conditions={"Stalled": "True"},
    ),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_situation(case: Case, decide: Callable[..., Plan]) -> None:
    case.check(decide(case.job, **case.facts))
