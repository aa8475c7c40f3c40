# ruff: noqa: E501 -- a table: one situation a row
"""What an RLRun waits for, how far it is, and how it ends: a lost server or sampler is no failure of the run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from pinnace_operator.reconcile.plan import Plan

from e2e.simulation.case import Case
from e2e.simulation.evalsuite import pod, toolsandbox
from e2e.simulation.objects import DIGEST, OUTPUT, at, checkpoint, condition, ended, outcome, sftjob, started, waiting
from e2e.simulation.objects import report as posted
from e2e.simulation.rlrun import gang, jobset, rlrun

FIRST, TOOLS = ("SFTJob", "first"), ("ToolSandbox", "tools")
FROM: dict[str, Any] = {"model": {"from": {"kind": "SFTJob", "name": "first"}}}
SFT_DONE = sftjob("first", uid="u", status=started(condition("Complete", reason="Completed"), output=OUTPUT))
MODEL = {"ref": "model: s3://pinnace/models/tiny", "uri": "s3://pinnace/models/tiny"}
TASKS = {"ref": "tasks: builtin arithmetic-tools, 256 samples, seed 0"}
DONE = ended(0, message=outcome(0, "Completed", "the model is there", output=OUTPUT))
METRICS = [
    {"name": "reward", "value": "0.625"}, {"name": "staleness_mean", "value": "1.2"},
    {"name": "policy_version", "value": "41"}, {"name": "servers_quarantined", "value": "1"},
]  # fmt: skip
TOLD = posted(40, metrics=METRICS)
AGAIN = pod("trainer", 0, phase="Pending", init=waiting("PodInitializing"), suffix="y")


def lost(role: str, code: int = 137, **facts: Any) -> dict[str, Any]:
    return pod(role, 0, phase="Failed", trainer=ended(code, **facts), ready=False, suffix="old")


CASES = [
    # ---- what it waits for
    Case(
        name="a model that is being made is waited for", job=rlrun(**FROM), facts={"upstreams": {FIRST: sftjob("first", uid="u", status=started())}},
        state="Pending", reason="WaitingForInput", says=("SFTJob/first",), status={"startTime": None},
    ),
    Case(
        name="a ToolSandbox that is not ready is waited for, with its reason", job=rlrun(toolSandbox={"name": "tools"}),
        facts={"upstreams": {TOOLS: toolsandbox(ready=False)}}, state="Pending", reason="WaitingForInput", says=("is Ready", "CrashLoop"),
    ),
    Case(
        name="with model and tools it starts", job=rlrun(toolSandbox={"name": "tools"}, **FROM),
        facts={"upstreams": {TOOLS: toolsandbox(), FIRST: SFT_DONE}}, state="Pending", reason="Starting", creates=True,
        status={"inputs": [
            {"ref": "model: SFTJob/first", "uri": OUTPUT["uri"], "digest": DIGEST},
            {"ref": "toolSandbox: ToolSandbox/tools", "uri": "http://tools.team.svc:8080"}, TASKS,
        ]},
    ),
    Case(
        name="suspended, it has no pods", job=rlrun(suspend=True), state="Suspended", reason="Suspended", says=("Set it to false",),
    ),
    Case(
        name="its queue is waited for", job=rlrun(queueName="q", status=started()), facts={"jobset": jobset(suspend=True)},
        state="Suspended", reason="QuotaPending",
    ),
    # ---- how far it is
    Case(
        name="it says who is still at its downloads", job=rlrun(status=started()), facts={
            "jobset": jobset(), "pods": gang(rollout=pod("rollout", init={"running": {"startedAt": at(-3)}}, ready=False)),
        }, state="Pending", reason="Starting", says=("fetching its model (rollout)",),
    ),
    Case(
        name="a trainer without any server does not run", job=rlrun(status=started()), facts={"jobset": jobset(), "pods": gang(rollout=lost("rollout"))},
        state="Pending", reason="Restarting", says=("RolloutFailed in pod job-rollout-0-0-old",),
    ),
    Case(
        name="it runs once each role does", job=rlrun(status=started()), facts={"jobset": jobset(), "pods": gang()},
        state="Running", reason="Running", says=("5 of 5 pods run",), status={"rollout": {"ready": 1, "wanted": 2}},
    ),
    Case(
        name="reward, staleness, version and quarantine are shown", job=rlrun(status=started()),
        facts={"jobset": jobset(), "pods": gang(), "progress": TOLD}, state="Running", reason="Running",
        status={"reward": "0.625", "staleness": "1.2", "policyVersion": 41, "rollout": {"ready": 1, "wanted": 2, "quarantined": 1}},
    ),
    Case(
        name="what was known stays while nothing is reported", job=rlrun(status=started(reward="0.5", policyVersion=7)),
        facts={"jobset": jobset(), "pods": gang()}, state="Running", reason="Running", status={"reward": "0.5", "policyVersion": 7},
    ),
    # ---- what fails on the way
    Case(
        name="a lost server leaves the run running", job=rlrun(status=started()), facts={"jobset": jobset(), "pods": (*gang(), lost("rollout"))},
        state="Running", reason="Running", says=("5 of 6 pods run",),
    ),
    Case(
        name="so does a lost sampler", job=rlrun(status=started()), facts={"jobset": jobset(), "pods": (*gang(), lost("sampler"))},
        state="Running", reason="Running",
    ),
    Case(
        name="a lost trainer starts again, alone", job=rlrun(status=started()),
        facts={"jobset": jobset(), "pods": (*gang(trainer=AGAIN), lost("trainer", 1))}, state="Pending", reason="Restarting",
        says=("1 of 6 pods ended early", "TrainerFailed in pod job-trainer-0-0-old", "each starts again"),
    ),
    # ---- how it ends
    Case(
        name="it is complete when the trainer is, whatever the others do", job=rlrun(status=started()),
        facts={"jobset": jobset(ended="Completed"), "pods": gang(trainer=pod("trainer", phase="Succeeded", trainer=DONE))},
        state="Complete", reason="Completed", says=(OUTPUT["uri"],), status={"output": OUTPUT},
    ),
    Case(
        name="a server that can't be used fails it, with the remedy", job=rlrun(status=started()),
        facts={"jobset": jobset(ended="Failed", reason="FailJobSetFailurePolicyAction"), "pods": gang(
            proxy=lost("proxy", 64, message=outcome(64, "InvalidSpec", "vLLM has no /pause. Remedy: start it with VLLM_SERVER_DEV_MODE=1")),
        )}, state="Failed", reason="InvalidSpec", says=("no /pause", "VLLM_SERVER_DEV_MODE=1"),
    ),
    Case(
        name="a loss that is no number fails it", job=rlrun(status=started(checkpoint=checkpoint(40))),
        facts={"jobset": jobset(ended="Failed", reason="FailJobSetFailurePolicyAction"), "pods": gang(
            trainer=lost("trainer", 70, message=outcome(70, "Diverged", "step 43: the last good checkpoint is that of step 40")),
        )}, state="Failed", reason="Diverged", says=("last good checkpoint", "learning"), status={"checkpoint": checkpoint(40)},
    ),
    Case(
        name="a server that was lost long ago does not explain why the trainer gave up", job=rlrun(status=started()),
        facts={"jobset": jobset(ended="Failed", reason="FailJobSetFailurePolicyAction"), "pods": (
            *gang(trainer=None), lost("rollout", 137, reason="OOMKilled", seconds=-500), lost("trainer", 1, seconds=-9),
        )}, state="Failed", reason="TrainerFailed",
    ),
    Case(name="a spec that can't work fails at once", job=rlrun(nonsense=1), state="Failed", reason="InvalidSpec"),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_situation(case: Case, decide: Callable[..., Plan]) -> None:
    case.check(decide(case.job, **case.facts))
