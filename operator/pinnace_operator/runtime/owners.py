"""From any object to the custom resource that it belongs to."""

from __future__ import annotations

from collections.abc import Collection

from pinnace_operator.runtime.kube import Object
from pinnace_operator.runtime.queue import Key

LABELS = "app.kubernetes.io/managed-by=pinnace"
KIND_LABEL, NAME_LABEL, UID_LABEL = "pinnace.dev/kind", "pinnace.dev/name", "pinnace.dev/uid"
ROLE_LABEL = "pinnace.dev/role"


def owner_key(child: Object, kinds: Collection[str]) -> Key | None:
    """The key that a child's labels name (all of them and pods carry them); None when it is not ours."""
    meta = child["metadata"]
    labels = meta.get("labels") or {}
    kind, name = labels.get(KIND_LABEL, ""), labels.get(NAME_LABEL, "")
    return Key(kind, meta["namespace"], name) if kind in kinds and name else None


def owner_uid(child: Object) -> str:
    """The UID of the controller of `child`, or ""."""
    references = child["metadata"].get("ownerReferences") or []
    return next((str(each["uid"]) for each in references if each.get("controller")), "")


def jobset_keys(workload: Object, kinds: Collection[str]) -> list[Key]:
    """Whom a Kueue Workload concerns: it is owned by the JobSet, which has the job's name. Too many keys do no harm."""
    meta = workload["metadata"]
    names = [each["name"] for each in meta.get("ownerReferences") or [] if each.get("kind") == "JobSet"]
    return [Key(kind, meta["namespace"], name) for name in names for kind in kinds]
