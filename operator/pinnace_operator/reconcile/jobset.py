"""Reading a JobSet: whose it is, and how far."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pinnace_operator.builders import jobset as builder
from pinnace_operator.builders.identity import KIND, ROLE, Identity
from pinnace_operator.reconcile import clock
from pinnace_operator.reconcile.plan import Prune, Raw


@dataclass(frozen=True)
class JobSet:
    """A view of the raw object; absent or malformed parts read as empty."""

    raw: Raw

    @property
    def _meta(self) -> Raw:
        return _mapping(self.raw.get("metadata"))

    @property
    def _status(self) -> Raw:
        return _mapping(self.raw.get("status"))

    @property
    def uid(self) -> str:
        return str(self._meta.get("uid", ""))

    @property
    def deleting(self) -> bool:
        return bool(self._meta.get("deletionTimestamp"))

    @property
    def suspended(self) -> bool:
        """By Kueue, or by hand: the operator never writes it."""
        return _mapping(self.raw.get("spec")).get("suspend") is True

    @property
    def role(self) -> str:
        return str(self.labels.get(ROLE, ""))

    @property
    def labels(self) -> Raw:
        return _mapping(self._meta.get("labels"))

    @property
    def annotations(self) -> Raw:
        return _mapping(self._meta.get("annotations"))

    @property
    def restarts(self) -> int:
        """Of this JobSet, counted or not."""
        return _count(self._status.get("restarts"))

    @property
    def counted_restarts(self) -> int:
        """Over the life of the job, as far as this JobSet knows."""
        return _count(self.annotations.get(builder.RESTARTS_BEFORE)) + _count(
            self._status.get("restartsCountTowardsMax")
        )

    @property
    def attempt(self) -> int:
        return _count(self.annotations.get(builder.FIRST_ATTEMPT)) + self.restarts

    @property
    def completed(self) -> bool:
        return self._condition("Completed") is not None

    @property
    def failed(self) -> bool:
        return self._condition("Failed") is not None

    @property
    def exhausted(self) -> bool:
        """It failed because its restarts were used up, not because of a permanent failure."""
        return (self._condition("Failed") or {}).get("reason") == "ReachedMaxRestarts"

    @property
    def finish_time(self) -> datetime | None:
        found = self._condition("Completed") or self._condition("Failed") or {}
        return clock.parse(found.get("lastTransitionTime"))

    @property
    def failure_message(self) -> str:
        return str((self._condition("Failed") or {}).get("message", ""))

    def prune(self) -> Prune:
        return Prune(api_version=builder.API_VERSION, kind="JobSet", name=str(self._meta.get("name", "")), uid=self.uid)

    def relabelled(self, identity: Identity, labels: dict[str, str]) -> dict[str, Any]:
        """A manifest that puts our labels back and changes nothing else."""
        spec = {name: value for name, value in _mapping(self.raw.get("spec")).items() if name != "suspend"}
        ours = (builder.FIRST_ATTEMPT, builder.RESTARTS_BEFORE)
        return {
            "apiVersion": builder.API_VERSION,
            "kind": "JobSet",
            "metadata": {
                "name": identity.name,
                "namespace": identity.namespace,
                "labels": {**self.labels, **labels},
                "annotations": {name: self.annotations.get(name, "0") for name in ours},
                "ownerReferences": [identity.owner_reference()],
            },
            "spec": spec,
        }

    def owned_by(self, identity: Identity) -> bool:
        return any(each.get("controller") and each.get("uid") == identity.uid for each in self._owners)

    def of_a_predecessor(self, identity: Identity) -> bool:
        """Of a resource with the same kind and name that was deleted before this one was created."""
        ours = self.labels.get(KIND) == identity.kind
        return ours and any(
            each.get("kind") == identity.kind and each.get("name") == identity.name for each in self._owners
        )

    @property
    def owner(self) -> str:
        """Who controls it, for a message."""
        found = next((each for each in self._owners if each.get("controller")), None)
        return f"{found.get('kind')}/{found.get('name')}" if found else "nobody that the operator knows"

    @property
    def _owners(self) -> list[Raw]:
        return [_mapping(each) for each in self._meta.get("ownerReferences") or ()]

    def _condition(self, type_: str) -> dict[str, Any] | None:
        """The condition of that type, if it is True."""
        conditions = self._status.get("conditions") or ()
        return next((dict(c) for c in conditions if c.get("type") == type_ and c.get("status") == "True"), None)


def _mapping(value: Any) -> Raw:
    return value if isinstance(value, dict) else {}


def _count(value: Any) -> int:
    try:
        return max(0, int(value or 0))
    except (TypeError, ValueError):
        return 0
