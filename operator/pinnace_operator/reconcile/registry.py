"""The kinds that the operator reconciles, and what it makes for each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pinnace_operator.reconcile import sft
from pinnace_operator.reconcile.plan import Observed, Plan, Raw


@dataclass(frozen=True)
class ChildKind:
    """A kind of object that a plan may contain."""

    api_version: str
    kind: str
    plural: str


JOBSET = ChildKind("jobset.x-k8s.io/v1alpha2", "JobSet", "jobsets")


@dataclass(frozen=True)
class Kind:
    """One kind: how to decide, what it owns, and what it waits for."""

    kind: str
    plural: str
    reconcile: Callable[[Mapping[str, Any], Observed], Plan]
    references: Callable[[Mapping[str, Any]], tuple[tuple[str, str], ...]]
    """(kind, name) of the resources in the same namespace whose status the decision needs."""
    children: tuple[ChildKind, ...]


KINDS: Mapping[str, Kind] = {
    "SFTJob": Kind("SFTJob", "sftjobs", sft.reconcile, sft.references, (JOBSET,)),
}


def reconcile(resource: Raw, observed: Observed) -> Plan:
    """What to do for a resource of any known kind.

    Raises:
        KeyError: the kind is not known.
    """
    return KINDS[resource["kind"]].reconcile(resource, observed)
