"""A reconcile whose plan is checked for what must always hold."""

from __future__ import annotations

import copy
from typing import Any

from pinnace_operator.api.evalstatus import EvalSuiteStatus
from pinnace_operator.api.merge_status import MergeJobStatus
from pinnace_operator.api.progress import ProgressReport
from pinnace_operator.api.rlstatus import RLRunStatus
from pinnace_operator.api.status import JobStatus
from pinnace_operator.api.toolsandbox_status import ToolSandboxStatus
from pinnace_operator.reconcile import registry
from pinnace_operator.reconcile.plan import Observed, OperatorSettings, Plan, Raw

from e2e.simulation.objects import NOW, Object

STATUS: dict[str, type[JobStatus]] = {"MergeJob": MergeJobStatus, "EvalSuite": EvalSuiteStatus, "RLRun": RLRunStatus}


def decide(resource: Object, **facts: Any) -> Plan:
    """Reconcile with these facts, twice: same inputs, same plan, inputs untouched."""
    if isinstance(facts.get("progress"), dict):
        facts["progress"] = ProgressReport.from_manifest(facts["progress"])
    observed = Observed(now=facts.pop("now", NOW), settings=facts.pop("settings", OperatorSettings()), **facts)
    before = copy.deepcopy((resource, observed))
    plan = registry.reconcile(resource, observed)
    assert registry.reconcile(resource, observed) == plan
    assert (resource, observed) == before
    if resource["kind"] == "ToolSandbox":
        _check_service(resource, plan)
    else:
        _check_job(resource, plan)
    return plan


def _check_job(resource: Object, plan: Plan) -> None:
    """One JobSet with the job's name, which Kueue may suspend; what must be there before it comes first. Or suites."""
    STATUS.get(resource["kind"], JobStatus).from_manifest(dict(plan.status))
    if any(child["kind"] == "EvalSuite" for child in plan.children):
        assert all(child["kind"] == "EvalSuite" and _owned(resource, child) for child in plan.children)
        return
    *beside, jobset = plan.children or (None,)
    assert all(child["kind"] == "NetworkPolicy" and _owned(resource, child) for child in beside)
    if jobset:
        assert (jobset["kind"], jobset["metadata"]["name"]) == ("JobSet", resource["metadata"]["name"])
        assert "suspend" not in jobset["spec"]


def _check_service(resource: Object, plan: Plan) -> None:
    """Every child is the resource's own, under a name of its own; nothing is made and deleted at once; no finalizer."""
    ToolSandboxStatus.from_manifest(dict(plan.status))
    names = [(child["kind"], child["metadata"]["name"]) for child in plan.children]
    assert len(set(names)) == len(names)
    assert not {(prune.kind, prune.name) for prune in plan.prune} & set(names)
    assert all(_owned(resource, child) for child in plan.children)
    assert not plan.finalizer
    assert "Secret" not in {kind for kind, _ in names}


def _owned(resource: Object, child: Raw) -> bool:
    meta, (owner,) = resource["metadata"], child["metadata"]["ownerReferences"]
    assert (owner["uid"], owner["controller"]) == (meta["uid"], True)
    assert child["metadata"]["namespace"] == meta["namespace"]
    return bool(child["metadata"]["labels"]["pinnace.dev/uid"] == meta["uid"])
