"""What ties a child to its resource: names, labels, the owner reference, and the run's folder in S3."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

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
