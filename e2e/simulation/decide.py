"""A reconcile whose plan is checked for what must always hold."""

from __future__ import annotations

import copy
from typing import Any

from pinnace_operator.api.progress import ProgressReport
from pinnace_operator.api.status import JobStatus
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
    JobStatus.from_manifest(dict(plan.status))
    assert len(plan.children) <= 1
    assert all(child["metadata"]["name"] == resource["metadata"]["name"] for child in plan.children)
    assert all("suspend" not in child["spec"] for child in plan.children)
    return plan
