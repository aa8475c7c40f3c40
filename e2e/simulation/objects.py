"""Kubernetes objects as the API server returns them, with only what the operator reads."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

Object = dict[str, Any]

NOW = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)
UID = "0a1b2c3d-0000-4000-8000-000000000001"
JOBSET_UID = "1a1b2c3d-0000-4000-8000-000000000002"
DIGEST = "sha256:" + "0" * 64
OUTPUT = {"uri": "s3://pinnace/team/sftjob/job/0a1b2c3d/output", "digest": DIGEST}
RUN = "s3://pinnace/team/sftjob/job/0a1b2c3d"


def at(seconds: int) -> str:
    """The time so many seconds after NOW."""
    return (NOW + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


def sftjob(
    name: str = "job", *, uid: str = UID, status: Object | None = None, meta: Object | None = None, **spec: Any
) -> Object:
    """A valid SFTJob in namespace `team`; keywords are fields of the spec."""
    return {
        "apiVersion": "pinnace.dev/v1alpha1",
        "kind": "SFTJob",
        "metadata": {"name": name, "namespace": "team", "uid": uid, "generation": 1, **(meta or {})},
        "spec": {
            "model": {"uri": "s3://pinnace/models/tiny"},
            "data": {"train": {"builtin": {"name": "lookup"}}},
            "trainer": {"device": "cpu", "resources": {"limits": {"memory": "2Gi"}}},
            **spec,
        },
        **({"status": status} if status is not None else {}),
    }  # fmt: skip


def mergejob(
    name: str = "job", *, uid: str = UID, status: Object | None = None, meta: Object | None = None, **spec: Any
) -> Object:
    """A valid MergeJob in namespace `team`; keywords are fields of the spec."""
    agent = {"name": "agent", "source": {"uri": "s3://pinnace/models/agent"}, "weight": "1"}
    whole = {"method": {"taskArithmetic": {}}, "base": {"uri": "s3://pinnace/models/tiny"}, "models": [agent], **spec}
    return {**sftjob(name, uid=uid, status=status, meta=meta), "kind": "MergeJob", "spec": whole}


def condition(
    type_: str, status: str = "True", reason: str = "Running", seconds: int = -600, message: str = ""
) -> Object:
    return {
        "type": type_, "status": status, "reason": reason, "message": message, "lastTransitionTime": at(seconds),
        "observedGeneration": 1,
    }  # fmt: skip


def started(*conditions: Object, seconds: int = -600, **fields: Any) -> Object:
    """The status of a job that was started so long ago."""
    usual = {"Progressing": condition("Progressing"), "Suspended": condition("Suspended", "False")}
    usual.update({each["type"]: each for each in conditions})
    return {"observedGeneration": 1, "startTime": at(seconds), "conditions": list(usual.values()), **fields}


def jobset(  # noqa: PLR0913 -- a table of facts, all optional
    *, name: str = "job", owner: str | None = UID, uid: str = JOBSET_UID, role: str = "trainer", restarts: int = 0,
    counted: int | None = None, first_attempt: int = 0, restarts_before: int = 0, deleting: bool = False,
    suspend: bool = False, ended: str | None = None, reason: str = "", seconds: int = -5, labels: Object | None = None,
) -> Object:  # fmt: skip
    """A JobSet that the operator made (`owner` None: somebody else)."""
    meta: Object = {
        "name": name, "namespace": "team", "uid": uid,
        "labels": {
            "app.kubernetes.io/managed-by": "pinnace", "pinnace.dev/kind": "SFTJob", "pinnace.dev/name": name,
            "pinnace.dev/uid": owner or "", "pinnace.dev/role": role, **(labels or {}),
        } if owner else {},
        "annotations": {
            "pinnace.dev/first-attempt": str(first_attempt), "pinnace.dev/restarts-before": str(restarts_before)
        },
        "ownerReferences": [{"kind": "SFTJob", "name": name, "uid": owner, "controller": True}] if owner else [],
    }  # fmt: skip
    if deleting:
        meta["deletionTimestamp"] = at(-1)
    status: Object = {"restarts": restarts, "restartsCountTowardsMax": restarts if counted is None else counted}
    if ended:
        status["conditions"] = [
            {"type": ended, "status": "True", "reason": reason, "message": "ended", "lastTransitionTime": at(seconds)}
        ]
    spec: Object = {"replicatedJobs": [{"name": role}], **({"suspend": True} if suspend else {})}
    return {
        "apiVersion": "jobset.x-k8s.io/v1alpha2",
        "kind": "JobSet",
        "metadata": meta,
        "spec": spec,
        "status": status,
    }


def pod(  # noqa: PLR0913 -- a table of facts, all optional
    rank: int = 0, *, phase: str = "Running", restart: int = 0, jobset_uid: str = JOBSET_UID, deleting: bool = False,
    init: Object | None = None, trainer: Object | None = None, conditions: tuple[Object, ...] = (), reason: str = "",
    role: str = "trainer", suffix: str = "x",
) -> Object:  # fmt: skip
    """A pod of the gang. `init` and `trainer` are states of containers; a running pod's trainer runs by default."""
    if trainer is None:
        trainer = (
            {"running": {"startedAt": at(-300)}} if phase == "Running" and init is None else waiting("PodInitializing")
        )
    done = ended(0, message="") if init is None and phase != "Pending" else waiting("PodInitializing")
    return {
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": f"job-{role}-0-{rank}-{suffix}", "namespace": "team", "uid": f"pod-{restart}-{rank}-{suffix}",
            "creationTimestamp": at(-300),
            "labels": {
                "pinnace.dev/uid": UID, "jobset.sigs.k8s.io/jobset-uid": jobset_uid,
                "jobset.sigs.k8s.io/restart-attempt": str(restart),
                "batch.kubernetes.io/job-completion-index": str(rank),
            },
            **({"deletionTimestamp": at(-2)} if deleting else {}),
        },
        "status": {
            "phase": phase, "startTime": at(-300), "conditions": list(conditions),
            **({"reason": reason} if reason else {}),
            "initContainerStatuses": [{"name": "preflight", "image": "pinnace/trainer", "state": init or done}],
            "containerStatuses": [{"name": role, "image": "pinnace/trainer", "state": trainer}],
        },
    }  # fmt: skip


def waiting(reason: str, message: str = "") -> Object:
    return {"waiting": {"reason": reason, "message": message}}


def ended(code: int, *, message: str | Object = "", reason: str = "", seconds: int = -3) -> Object:
    """A terminated state; a message given as an object is an Outcome."""
    text = message if isinstance(message, str) else json.dumps(message)
    usual = reason or ("Completed" if code == 0 else "Error")
    return {"terminated": {"exitCode": code, "reason": usual, "message": text, "finishedAt": at(seconds)}}


def outcome(code: int, reason: str, message: str = "", **fields: Any) -> Object:
    return {"reason": reason, "exitCode": code, "message": message, **fields}


def checkpoint(step: int = 40) -> Object:
    return {"step": step, "uri": f"{RUN}/checkpoints/step-{step:08d}", "digest": DIGEST, "time": at(-60)}


def report(step: int = 50, total: int | None = 100, **fields: Any) -> Object:
    """A progress report as a pod posts it."""
    who = {"kind": "SFTJob", "namespace": "team", "name": "job", "uid": UID, "attempt": 0}
    return {**who, "step": step, "totalSteps": total, "etaSeconds": 120, "throughput": "812 tokens/s", **fields}


def warning(reason: str, message: str, *, about: str = "job-trainer-0-0-x", seconds: int = -1) -> Object:
    return {
        "reason": reason, "message": message, "type": "Warning", "lastTimestamp": at(seconds),
        "involvedObject": {"name": about},
    }  # fmt: skip


def workload(type_: str, status: str, reason: str, message: str) -> Object:
    return {"status": {"conditions": [{"type": type_, "status": status, "reason": reason, "message": message}]}}
