"""The kinds that the operator reconciles, and what it makes for each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pinnace_operator.api.base import API_VERSION
from pinnace_operator.reconcile import evals, merge, rl, sft, toolsandbox
from pinnace_operator.reconcile.plan import Observed, Plan, Raw


@dataclass(frozen=True)
class ChildKind:
    """A kind of object that a plan may contain."""

    api_version: str
    kind: str
    plural: str
    listed: bool = True
    """Whether its objects are facts of a service: watched, and read before each decision."""
    orphaned: bool = False
    """Whether a resync deletes those whose owner is gone, should the garbage collector not have done it."""


JOBSET = ChildKind("jobset.x-k8s.io/v1alpha2", "JobSet", "jobsets", orphaned=True)
NETWORK_POLICY = ChildKind("networking.k8s.io/v1", "NetworkPolicy", "networkpolicies", orphaned=True)
EVAL_SUITE = ChildKind(API_VERSION, "EvalSuite", "evalsuites")
SERVICE_CHILDREN = (
    ChildKind("v1", "ConfigMap", "configmaps"),
    ChildKind("v1", "ServiceAccount", "serviceaccounts"),
    ChildKind("v1", "Service", "services", orphaned=True),
    ChildKind("rbac.authorization.k8s.io/v1", "Role", "roles"),
    ChildKind("rbac.authorization.k8s.io/v1", "RoleBinding", "rolebindings"),
    NETWORK_POLICY,
    ChildKind("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets", orphaned=True),
    ChildKind("apps/v1", "Deployment", "deployments", orphaned=True),
    # Facts of every kind, and deleted when worn out; never applied.
    ChildKind("v1", "Pod", "pods", listed=False),
)


@dataclass(frozen=True)
class Kind:
    """One kind: how to decide, what it owns, and what it waits for."""

    kind: str
    plural: str
    reconcile: Callable[[Mapping[str, Any], Observed], Plan]
    references: Callable[[Mapping[str, Any]], tuple[tuple[str, str], ...]]
    """(kind, name) of the resources in the same namespace whose status the decision needs."""
    children: tuple[ChildKind, ...]
    service: bool = False
    """It has children of many kinds and serves, instead of one JobSet that ends."""


KINDS: Mapping[str, Kind] = {
    "SFTJob": Kind("SFTJob", "sftjobs", sft.reconcile, sft.references, (JOBSET,)),
    "MergeJob": Kind("MergeJob", "mergejobs", merge.reconcile, merge.references, (JOBSET, EVAL_SUITE)),
    "EvalSuite": Kind("EvalSuite", "evalsuites", evals.reconcile, evals.references, (JOBSET, NETWORK_POLICY)),
    "RLRun": Kind("RLRun", "rlruns", rl.reconcile, rl.references, (JOBSET, NETWORK_POLICY)),
    "ToolSandbox": Kind(
        "ToolSandbox", "toolsandboxes", toolsandbox.reconcile, toolsandbox.references, SERVICE_CHILDREN, service=True
    ),
}


def reconcile(resource: Raw, observed: Observed) -> Plan:
    """What to do for a resource of any known kind.

    Raises:
        KeyError: the kind is not known.
    """
    return KINDS[resource["kind"]].reconcile(resource, observed)
