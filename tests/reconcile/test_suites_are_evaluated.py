# ruff: noqa: E501 -- a table: one situation a row
"""What an EvalSuite waits for, how far it is, and how it ends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pinnace_operator.reconcile.plan import Plan

from e2e.simulation.case import Case
from e2e.simulation.decide import decide as checked
from e2e.simulation.evalsuite import REPORT, evalsuite, jobset, pod, toolsandbox
from e2e.simulation.objects import (
    DIGEST,
    OUTPUT,
    Object,
    at,
    condition,
    ended,
    outcome,
    report,
    sftjob,
    started,
    waiting,
)

from .test_whatever_happens import jobsets, states, statuses

TOOLS, BASE = ("ToolSandbox", "tools"), ("EvalSuite", "base")
WITH_TOOLS: dict[str, Any] = {"toolSandbox": {"name": "tools"}}
COMPARED: dict[str, Any] = {"compareTo": ["base"]}
BASE_DONE = evalsuite("base", uid="b", status=started(condition("Complete", reason="Completed"), output=REPORT))
BASE_RUNS = evalsuite("base", uid="b", status=started(condition("Progressing")))
BASE_FAILED = evalsuite("base", uid="b", status=started(condition("Failed", reason="InvalidSpec")))
BENCHMARK = {"ref": "benchmarks.gaia: shipped"}
MODEL = {"ref": "model: s3://pinnace/models/tiny", "uri": "s3://pinnace/models/tiny"}
TABLE = [
    {"name": "gaia", "done": 6, "total": 6, "score": "60.0", "low": "50.0", "high": "70.0", "passAt": "80.0"},
    {"name": "hle", "done": 2, "total": 4, "score": "20.0", "low": "10.0", "high": "30.0"},
]
STORED = [{"tokens": 0, **each} for each in TABLE]
DONE = ended(0, message=outcome(0, "Completed", "gaia 60.0", output=REPORT, benchmarks=TABLE))
AT_WORK = (pod("preflight", phase="Succeeded"), pod("rollout", container="server"), pod("worker"))
BUSY = (pod("worker", 1, phase="Failed", trainer=ended(137)), *AT_WORK)

CASES = [
    # ---- what it waits for
    Case(
        name="a ToolSandbox that does not exist is waited for", job=evalsuite(**WITH_TOOLS), facts={"upstreams": {TOOLS: None}},
        state="Pending", reason="WaitingForInput", says=("ToolSandbox/tools", "create it"), status={"startTime": None},
    ),
    Case(
        name="a ToolSandbox that is not ready is waited for, with its reason", job=evalsuite(**WITH_TOOLS),
        facts={"upstreams": {TOOLS: toolsandbox(ready=False)}}, state="Pending", reason="WaitingForInput",
        says=("is Ready", "CrashLoop", "time ended 5 times"),
    ),
    Case(
        name="a ToolSandbox whose gateway would refuse is said", job=evalsuite(**WITH_TOOLS),
        facts={"upstreams": {TOOLS: toolsandbox(auth={"mode": "ServiceAccount"})}},
        state="Pending", reason="WaitingForInput", says=("gateway.auth.mode", "Token"),
    ),
    Case(
        name="with its tools it starts", job=evalsuite(**WITH_TOOLS), facts={"upstreams": {TOOLS: toolsandbox()}},
        state="Pending", reason="Starting", creates=True, status={"inputs": [
            MODEL, {"ref": "toolSandbox: ToolSandbox/tools", "uri": "http://tools.team.svc:8080"}, BENCHMARK,
        ]},
    ),
    Case(
        name="a model that is being made is waited for", job=evalsuite(model={"from": {"kind": "SFTJob", "name": "first"}}),
        facts={"upstreams": {("SFTJob", "first"): sftjob("first", uid="u", status=started())}},
        state="Pending", reason="WaitingForInput", says=("SFTJob/first",),
    ),
    Case(
        name="the suite to compare with is waited for", job=evalsuite(**COMPARED), facts={"upstreams": {BASE: BASE_RUNS}},
        state="Pending", reason="WaitingForInput", says=("the report of EvalSuite/base, which is Running",),
    ),
    Case(
        name="a suite to compare with that failed fails this one", job=evalsuite(**COMPARED), facts={"upstreams": {BASE: BASE_FAILED}},
        state="Failed", reason="InputFailed", says=("EvalSuite/base failed", "leave it out of compareTo"),
    ),
    Case(
        name="the report to compare with is pinned", job=evalsuite(**COMPARED), facts={"upstreams": {BASE: BASE_DONE}},
        state="Pending", reason="Starting", creates=True,
        status={"inputs": [MODEL, {"ref": "compareTo: EvalSuite/base", "uri": REPORT["uri"], "digest": DIGEST}, BENCHMARK]},
    ),
    Case(
        name="a pinned report outlives its suite", facts={"upstreams": {BASE: None}}, state="Pending", reason="Starting", creates=True,
        job=evalsuite(**COMPARED, status=started(inputs=[{"ref": "compareTo: EvalSuite/base", "uri": REPORT["uri"], "digest": DIGEST}])),
    ),
    # ---- how far it is
    Case(
        name="everything is checked first", job=evalsuite(status=started()), facts={"jobset": jobset(), "pods": (pod("preflight"),)},
        state="Pending", reason="Starting", says=("Checking benchmarks, judge and tools before the model is served",),
    ),
    Case(
        name="the model is fetched", job=evalsuite(status=started()),
        facts={"jobset": jobset(), "pods": (
            AT_WORK[0], pod("rollout", ready=False, phase="Pending", init={"running": {}}))},
        state="Pending", reason="Starting", says=("Fetching the model in 1 of 1 servers",),
    ),
    Case(
        name="the model is loaded", job=evalsuite(status=started()),
        facts={"jobset": jobset(), "pods": (AT_WORK[0], pod("rollout", container="server", ready=False))},
        state="Pending", reason="Starting", says=("Loading the model in 1 of 1 servers",),
    ),
    Case(
        name="an image that can't be had stalls it", job=evalsuite(status=started()),
        facts={"jobset": jobset(), "pods": (AT_WORK[0], pod("rollout", phase="Pending", ready=False, trainer=waiting("ImagePullBackOff")))},
        state="Stalled", reason="ImagePullFailed",
    ),
    Case(
        name="the shards work", job=evalsuite(status=started()),
        facts={"jobset": jobset(), "pods": AT_WORK, "progress": report(8, 10, kind="EvalSuite", benchmarks=TABLE)},
        state="Running", reason="Running", says=("2 of 3 pods run",),
        status={"benchmarks": STORED, "score": "40.0 ± 7.1"},
    ),
    Case(
        name="a shard that failed stops nobody", job=evalsuite(shards=2, status=started()), facts={"jobset": jobset(), "pods": BUSY},
        state="Running", reason="Running", says=("2 of 4 pods run",),
    ),
    Case(
        name="the table stays when the operator has forgotten the report", job=evalsuite(status=started(benchmarks=STORED)),
        facts={"jobset": jobset(), "pods": AT_WORK}, state="Running", reason="Running",
        status={"benchmarks": STORED, "score": "40.0 ± 7.1"},
    ),
    # ---- the end
    Case(
        name="any shard may tell the result", job=evalsuite(shards=2, status=started()),
        facts={"jobset": jobset(ended="Completed"), "pods": (pod("worker", 1, phase="Succeeded", trainer=DONE),)},
        state="Complete", reason="Completed", says=(REPORT["uri"],),
        status={"output": REPORT, "benchmarks": STORED, "score": "40.0 ± 7.1", "completionTime": at(0)},
    ),
    Case(
        name="what the check found wrong fails the suite", job=evalsuite(status=started()),
        facts={"jobset": jobset(ended="Failed", reason="FailJobSetFailurePolicyAction"), "pods": (
            pod("preflight", phase="Failed", trainer=ended(64, message=outcome(64, "InvalidSpec", "there is no benchmark 'giaa': did you mean gaia?"))),)},
        state="Failed", reason="InvalidSpec", says=("did you mean gaia",),
    ),
    Case(
        name="gated data is said with what helps", job=evalsuite(status=started()),
        facts={"jobset": jobset(ended="Failed", reason="FailJobSetFailurePolicyAction"), "pods": (
            pod("preflight", phase="Failed", trainer=ended(65, message=outcome(65, "InvalidData", "gaia is gated"))),)},
        state="Failed", reason="InvalidData", says=("gaia is gated", "hubSecretName", "benchmarks[].source"),
    ),
    Case(
        name="a server that dies without a word is named", job=evalsuite(status=started()),
        facts={"jobset": jobset(ended="Failed", reason="FailJobSetFailurePolicyAction"), "pods": (
            pod("rollout", container="server", phase="Failed", trainer=ended(1)),)},
        state="Failed", reason="RolloutFailed", says=("Container server",),
    ),
    Case(
        name="a shard that dies without a word is named", job=evalsuite(status=started()),
        facts={"jobset": jobset(ended="Failed", reason="FailJobSetFailurePolicyAction"), "pods": (
            pod("worker", phase="Failed", trainer=ended(1)),)},
        state="Failed", reason="ShardFailed",
    ),
    Case(
        name="what was found stays when the suite has failed", state="Failed", reason="InvalidSpec",
        job=evalsuite(status=started(condition("Failed", reason="InvalidSpec"), condition("Progressing", "False", "InvalidSpec"), benchmarks=STORED)),
        status={"benchmarks": STORED},
    ),
    Case(
        name="a suspended suite lets its pods go", job=evalsuite(suspend=True, status=started()),
        facts={"jobset": jobset(), "pods": AT_WORK}, state="Suspended", reason="Suspending", prunes=True,
    ),
    Case(
        name="a spec that the API server let through", job=evalsuite(nonsense=1), state="Failed", reason="InvalidSpec", says=("nonsense",),
    ),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_situation(case: Case, decide: Callable[..., Plan]) -> None:
    case.check(decide(case.job, **case.facts))


def test_memory_is_said_of_the_container_that_ran_out_of_it(decide: Callable[..., Plan]) -> None:
    killed = pod("rollout", container="server", phase="Failed", trainer=ended(137, reason="OOMKilled"))
    killed["spec"] = {"containers": [{"name": "server", "resources": {"limits": {"memory": "6Gi"}}}]}
    plan = decide(evalsuite(status=started()), jobset=jobset(), pods=(killed,))
    assert "its memory limit of 6Gi" in plan.status["lastFailure"]["message"]


def test_a_model_of_another_job_is_no_suite(decide: Callable[..., Plan]) -> None:
    """`from` takes models only: the outputs of suites are reports."""
    plan = decide(evalsuite(model={"from": {"kind": "EvalSuite", "name": "base"}}), upstreams={BASE: BASE_DONE})
    assert plan.status["state"] == "Failed"
    assert OUTPUT["uri"] not in str(plan.status)


suites = st.builds(
    lambda status, **spec: evalsuite(status=status, **{name: each for name, each in spec.items() if each is not None}),
    statuses,
    toolSandbox=st.none() | st.just({"name": "tools"}), compareTo=st.none() | st.just(["base"]),
    shards=st.integers(1, 3), suspend=st.none() | st.booleans(), deletionPolicy=st.none() | st.just("Delete"),
    queueName=st.none() | st.just("q"), activeDeadlineSeconds=st.none() | st.integers(1, 9999),
)  # fmt: skip
crowds = st.lists(
    st.builds(
        pod, st.sampled_from(["preflight", "rollout", "worker", "cleanup"]), st.integers(0, 2), ready=st.booleans(),
        container=st.sampled_from(["", "server"]), phase=st.sampled_from(["Pending", "Running", "Succeeded", "Failed"]),
        restart=st.integers(0, 1), deleting=st.booleans(), init=st.none() | states, trainer=st.none() | states | st.just(DONE),
    ),
    max_size=5,
)  # fmt: skip
sandboxes = st.sampled_from([None, toolsandbox(), toolsandbox(ready=False), {"metadata": {}}, toolsandbox(nonsense=1)])
bases = st.sampled_from([None, BASE_DONE, BASE_RUNS, BASE_FAILED, {"status": {"nonsense": 1}}])


@settings(max_examples=300, deadline=None)
@given(suites, jobsets, crowds, sandboxes, bases, st.booleans())
def test_any_observation_has_a_plan(
    suite: Object, found: Object | None, seen: list[Object], sandbox: Object | None, base: Object | None, heard: bool
) -> None:
    facts: dict[str, Any] = {"progress": report(benchmarks=TABLE)} if heard else {}
    plan = checked(suite, jobset=found, pods=tuple(seen), upstreams={TOOLS: sandbox, BASE: base}, **facts)
    names = [each["name"] for each in plan.status.get("benchmarks", ())]
    assert len(set(names)) == len(names)
