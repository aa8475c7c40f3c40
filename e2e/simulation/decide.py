"""A reconcile whose plan is checked for what must always hold."""

from __future__ import annotations

import copy
from typing import Any

from pinnace_operator.api.progress import ProgressReport
from pinnace_operator.api.rlstatus import RLRunStatus
from pinnace_operator.api.status import JobStatus
from pinnace_operator.api.toolsandbox_status import ToolSandboxStatus
from pinnace_operator.reconcile import registry
from pinnace_operator.reconcile.plan import Observed, OperatorSettings, Plan

from e2e.simulation.objects import NOW, Object


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
    status = {"RLRun": RLRunStatus}.get(resource["kind"], JobStatus)
    status.from_manifest(dict(plan.status))
    sets = [child for child in plan.children if child["kind"] == "JobSet"]
    assert len(sets) <= 1
    assert all(child["kind"] in ("JobSet", "NetworkPolicy") for child in plan.children)
    assert all(child["metadata"]["name"] == resource["metadata"]["name"] for child in sets)
    assert all("suspend" not in child["spec"] for child in sets)


def _check_service(resource: Object, plan: Plan) -> None:
    """Every child is the resource's own, under a name of its own; nothing is made and deleted at once; no finalizer."""
    ToolSandboxStatus.from_manifest(dict(plan.status))
    meta = resource["metadata"]
    names = [(child["kind"], child["metadata"]["name"]) for child in plan.children]
    assert len(set(names)) == len(names)
    assert not {(prune.kind, prune.name) for prune in plan.prune} & set(names)
    for child in plan.children:
        (owner,) = child["metadata"]["ownerReferences"]
        assert (owner["uid"], owner["controller"]) == (meta["uid"], True)
        assert child["metadata"]["namespace"] == meta["namespace"]
        assert child["metadata"]["labels"]["pinnace.dev/uid"] == meta["uid"]
    assert not plan.finalizer
    assert "Secret" not in {kind for kind, _ in names}
