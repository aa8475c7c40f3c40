"""What ties a child to its resource: names, labels, the owner reference, and the run's folder in S3."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from pinnace_operator.api.base import API_VERSION

MANAGED_BY = "app.kubernetes.io/managed-by"
KIND, NAME, UID, ROLE = "pinnace.dev/kind", "pinnace.dev/name", "pinnace.dev/uid", "pinnace.dev/role"


@dataclass(frozen=True, kw_only=True)
class Identity:
    """Which resource a child belongs to."""

    kind: str
    namespace: str
    name: str
    uid: str
    generation: int = 0

    @classmethod
    def of(cls, resource: Mapping[str, Any]) -> Self:
        """Of a custom resource as the API server returns it."""
        meta = resource["metadata"]
        return cls(
            kind=str(resource["kind"]),
            namespace=str(meta["namespace"]),
            name=str(meta["name"]),
            uid=str(meta["uid"]),
            generation=int(meta.get("generation", 0)),
        )

    @property
    def run_path(self) -> str:
        """The run's folder below the storage prefix (docs/contracts.md §4)."""
        return f"{self.namespace}/{self.kind.lower()}/{self.name}/{self.uid[:8]}"

    def labels(self, role: str) -> dict[str, str]:
        return {MANAGED_BY: "pinnace", KIND: self.kind, NAME: self.name, UID: self.uid, ROLE: role}

    def owner_reference(self) -> dict[str, Any]:
        """Controller reference: the garbage collector deletes the child with the resource."""
        return {
            "apiVersion": API_VERSION,
            "kind": self.kind,
            "name": self.name,
            "uid": self.uid,
            "controller": True,
            "blockOwnerDeletion": True,
        }
