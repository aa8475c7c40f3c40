"""EvalSuites and what they look at, as the API server returns them."""

from __future__ import annotations

from typing import Any

from e2e.simulation import objects
from e2e.simulation.objects import DIGEST, UID, Object, condition

KIND = {"pinnace.dev/kind": "EvalSuite"}
REPORT = {"uri": "s3://pinnace/team/evalsuite/base/0a1b2c3d/output", "digest": DIGEST}


def evalsuite(
    name: str = "job", *, uid: str = UID, status: Object | None = None, meta: Object | None = None, **spec: Any
) -> Object:
    """A valid EvalSuite in namespace `team`; keywords are fields of the spec."""
    return {
        "apiVersion": "pinnace.dev/v1alpha1",
        "kind": "EvalSuite",
        "metadata": {"name": name, "namespace": "team", "uid": uid, "generation": 1, **(meta or {})},
        "spec": {
            "model": {"uri": "s3://pinnace/models/tiny"},
            "engine": {"vllm": {"device": "cpu", "resources": {"limits": {"memory": "6Gi"}}}},
            "agent": {"dialect": "Hermes"},
            "benchmarks": [{"name": "gaia"}],
            **spec,
        },
        **({"status": status} if status is not None else {}),
    }


def toolsandbox(*, ready: bool = True, **gateway: Any) -> Object:
    """The ToolSandbox `tools`."""
    told = condition(
        "Ready", str(ready), "Available" if ready else "CrashLoop", message="" if ready else "time ended 5 times"
    )
    return {
        "apiVersion": "pinnace.dev/v1alpha1",
        "kind": "ToolSandbox",
        "metadata": {"name": "tools", "namespace": "team", "uid": "t1"},
        "spec": {"servers": [{"name": "time", "catalogue": "time"}], "gateway": gateway},
        "status": {"conditions": [told], "endpoint": "http://tools.team.svc:8080"},
    }


def jobset(**facts: Any) -> Object:
    return objects.jobset(role="worker", labels=KIND, **facts)


def pod(role: str, rank: int = 0, *, container: str = "", ready: bool = True, **facts: Any) -> Object:
    """A pod of one role; `facts` as of `objects.pod`."""
    found = objects.pod(rank, role=role, conditions=(condition("Ready", str(ready)),), **facts)
    found["metadata"]["labels"]["pinnace.dev/role"] = role
    found["status"]["containerStatuses"][0]["name"] = container or role
    return found
