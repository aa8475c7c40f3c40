# ruff: noqa: E501 -- a table: one situation a row
"""What a MergeJob adds to the life of a job: several inputs, its own remedies, and a status with plan and sweep."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from pinnace_operator.reconcile import merge
from pinnace_operator.reconcile.plan import Plan

from e2e.simulation.case import Case
from e2e.simulation.objects import (
    DIGEST,
    OUTPUT,
    Object,
    at,
    condition,
    ended,
    jobset,
    mergejob,
    outcome,
    pod,
    report,
    sftjob,
    started,
)

SFT, BASE = ("SFTJob", "agent"), ("MergeJob", "before")
FROM = {
    "base": {"from": {"kind": "MergeJob", "name": "before"}},
    "models": [{"name": "agent", "source": {"from": {"kind": "SFTJob", "name": "agent"}}, "weight": "1"}],
}
COMPLETE = started(condition("Complete", reason="Completed"), output=OUTPUT)
FAILED = started(condition("Failed", reason="Diverged"), completionTime=at(-100))
PLAN = {"tensors": 24, "inputBytes": 4000, "outputBytes": 2000, "files": 1}
FILES = [{"name": "model.safetensors", "bytes": 2000, "digest": DIGEST}]
SWEEP = {"candidates": 2, "scored": 1}
ROW = {"candidate": "candidate-000", "values": ["0.5"], "special": "1", "general": "2", "total": "1.5"}
WON = {"candidates": 1, "scored": 1, "rows": [ROW], "winner": "candidate-000"}
AGENT_DONE = sftjob("agent", uid="u1", status=COMPLETE)
BEFORE_DONE = mergejob("before", uid="u2", status={**COMPLETE, "plan": PLAN, "files": FILES})
OURS = {"pinnace.dev/kind": "MergeJob"}
RUNS: dict[str, Any] = {"jobset": jobset(role="worker", labels=OURS), "pods": (pod(role="worker"),)}


def died(state: Object) -> dict[str, Any]:
    return {
        "jobset": jobset(role="worker", ended="Failed", reason="FailJobSetFailurePolicyAction"),
        "pods": (pod(role="worker", phase="Failed", trainer=state),),
    }


CASES = [
    Case(name="a new merge gets its JobSet", job=mergejob(), state="Pending", reason="Starting", creates=True,
         status={"inputs": [
             {"ref": "base: s3://pinnace/models/tiny", "uri": "s3://pinnace/models/tiny"},
             {"ref": "models.agent: s3://pinnace/models/agent", "uri": "s3://pinnace/models/agent"},
         ]}),
    Case(name="it waits for the one of two inputs that is not there", job=mergejob(**FROM),
         facts={"upstreams": {SFT: None, BASE: BEFORE_DONE}}, state="Pending", reason="WaitingForInput", says=("SFTJob/agent", "create it")),
    Case(name="an input that failed fails it, though another is still waited for", job=mergejob(**FROM),
         facts={"upstreams": {SFT: sftjob("agent", uid="u1", status=FAILED), BASE: None}}, state="Failed", reason="InputFailed",
         says=("SFTJob/agent failed", "another one in `from`")),
    Case(name="SFT and a merge before lead to this merge by themselves", job=mergejob(**FROM),
         facts={"upstreams": {SFT: AGENT_DONE, BASE: BEFORE_DONE}}, state="Pending", reason="Starting", creates=True,
         status={"inputs": [
             {"ref": "base: MergeJob/before", "uri": OUTPUT["uri"], "digest": DIGEST},
             {"ref": "models.agent: SFTJob/agent", "uri": OUTPUT["uri"], "digest": DIGEST},
         ]}),
    Case(name="a spec that can't work", job=mergejob(method={"slerp": {}}), state="Failed", reason="InvalidSpec", says=("slerp.t",)),
    Case(name="it tells plan, files and sweep while it runs", job=mergejob(status=started()),
         facts={**RUNS, "progress": report(500, 2000, merge={"plan": PLAN, "sweep": SWEEP})}, state="Running", reason="Running",
         status={"plan": PLAN, "sweep": SWEEP, "files": None}),
    Case(name="what was told stays when the operator has forgotten the report", job=mergejob(status={**started(), "plan": PLAN, "sweep": SWEEP}),
         facts=RUNS, state="Running", reason="Running", status={"plan": PLAN, "sweep": SWEEP}),
    Case(name="the last words count, also if no report ever came", job=mergejob(status=started()), state="Complete", reason="Completed",
         facts={"jobset": jobset(role="worker", ended="Completed"), "pods": (
             pod(role="worker", phase="Succeeded", trainer=ended(0, message=outcome(0, "Completed", output=OUTPUT, merge={"plan": PLAN, "files": FILES}))),
         )}, status={"output": OUTPUT, "plan": PLAN, "files": FILES}),
    Case(name="a table that the last words had no room for comes from the report", job=mergejob(status=started()), state="Complete", reason="Completed",
         facts={"progress": report(9, 9, merge={"sweep": WON}), "jobset": jobset(role="worker", ended="Completed"), "pods": (
             pod(role="worker", phase="Succeeded", trainer=ended(0, message=outcome(0, "Completed", output=OUTPUT, merge={"sweep": {**WON, "rows": []}}))),
         )}, status={"sweep": WON}),
    Case(name="killed for memory", job=mergejob(status=started(), backoffLimit=0), facts=died(ended(137, reason="OOMKilled")),
         state="Failed", reason="OutOfMemory", says=("memory limit of 1280Mi", "worker.resources.limits.memory", "memoryLimit")),
    Case(name="models that do not fit", job=mergejob(status=started()), facts=died(ended(78, message=outcome(78, "ModelUnusable", "architectures differ"))),
         state="Failed", reason="ModelUnusable", says=("architectures differ", "missingTensors")),
    Case(name="died without a word", job=mergejob(status=started()), facts=died(ended(3)), state="Failed", reason="WorkerFailed", says=("exit code 3",)),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_situation(case: Case, decide: Callable[..., Plan]) -> None:
    case.check(decide(case.job, **case.facts))


def test_the_pod_is_told_where_its_inputs_are(decide: Callable[..., Plan]) -> None:
    (child,) = decide(mergejob(**FROM), upstreams={SFT: AGENT_DONE, BASE: BEFORE_DONE}).children
    pod_spec = child["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]
    job = next(each["value"] for each in pod_spec["containers"][0]["env"] if each["name"] == "PINNACE_JOB")
    found = {"uri": OUTPUT["uri"], "digest": DIGEST}
    assert json.loads(job)["resolved"] == {"base": found, "models.agent": found}


def test_an_sft_job_can_go_on_from_a_merge(decide: Callable[..., Plan]) -> None:
    job = sftjob(model={"from": {"kind": "MergeJob", "name": "before"}})
    assert decide(job, upstreams={BASE: BEFORE_DONE}).children


@pytest.mark.parametrize(
    ("spec", "found"),
    [
        ({}, ()),
        (FROM, (BASE, SFT)),
        ({"models": [{"name": "a", "source": {"uri": "s3://b/m"}, "adapter": {"from": {"kind": "SFTJob", "name": "agent"}}}]}, (SFT,)),
        ({"models": [{"source": {"from": {"kind": "SFTJob"}}}]}, ()),
    ],
)  # fmt: skip
def test_references_are_read_from_any_spec(spec: Object, found: tuple[tuple[str, str], ...]) -> None:
    assert merge.references({"spec": spec}) == found
