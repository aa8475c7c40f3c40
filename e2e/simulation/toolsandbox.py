"""Objects around a ToolSandbox as the API server returns them, with only what the operator reads."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from pinnace_operator.api.load import LoadReport
from pinnace_operator.reconcile.plan import Load

from e2e.simulation.objects import NOW, UID, Object, at, condition

GATEWAY_POD = "tools-gateway-0"
READY = [condition("Ready"), condition("ContainersReady")]


def toolsandbox(
    name: str = "tools", *, status: Object | None = None, meta: Object | None = None, **spec: Any
) -> Object:
    """A valid ToolSandbox in namespace `team` with one server; keywords are fields of the spec."""
    return {
        "apiVersion": "pinnace.dev/v1alpha1",
        "kind": "ToolSandbox",
        "metadata": {"name": name, "namespace": "team", "uid": UID, "generation": 1, **(meta or {})},
        "spec": {"servers": [{"name": "time", "catalogue": "time"}], **spec},
        **({"status": status} if status is not None else {}),
    }


def child(manifest: Object, uid: str | None = None) -> Object:
    """An applied manifest as it is read back."""
    meta = manifest["metadata"]
    return {**manifest, "metadata": {**meta, "uid": uid or f"{manifest['kind']}-{meta['name']}"}}


def pod(  # noqa: PLR0913 -- a table of facts, all optional
    role: str, *, server: str = "", version: str = "v1", name: str = "", ready: bool = True, deleting: bool = False,
    state: Object | None = None, restarts: int = 0, last: Object | None = None, conditions: list[Object] | None = None,
    started: bool | None = None, seconds: int = -300,
) -> Object:  # fmt: skip
    """A pod of a role. `state` is its first container's; it runs by default."""
    labels = {"pinnace.dev/uid": UID, "pinnace.dev/role": role, "app.kubernetes.io/managed-by": "pinnace"}
    if server:
        labels |= {"pinnace.dev/server": server, "pinnace.dev/version": version}
    first = {"gateway": "gateway", "server": "server", "session": "agent"}[role]
    container: Object = {
        "name": first, "image": "localhost/pinnace/tools:0.1.0", "ready": ready, "restartCount": restarts,
        "started": ready if started is None else started,
        "state": state or {"running": {"startedAt": at(seconds)}}, "lastState": {"terminated": last} if last else {},
    }  # fmt: skip
    waiting = "waiting" in container["state"]
    name = name or (GATEWAY_POD if role == "gateway" else f"tools-{server or role}-{version}-x")
    return {
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": name, "namespace": "team", "uid": f"uid-{name}", "labels": labels,
            **({"deletionTimestamp": at(-1)} if deleting else {}),
        },
        "status": {
            "phase": "Pending" if waiting else "Running",
            "conditions": conditions
            or (READY if ready else [condition("Ready", "False", seconds=seconds)]),
            "containerStatuses": [container],
        },
    }  # fmt: skip


def load(
    *servers: Object, pod: str = GATEWAY_POD, generation: int = 1, tools: int = 2, seconds: int = -1, **fields: Any
) -> Load:  # fmt: skip
    """A gateway's report of so many seconds ago."""
    who = {"kind": "ToolSandbox", "namespace": "team", "name": "tools", "uid": UID, "pod": pod}
    report = {**who, "generation": generation, "tools": tools, "servers": list(servers), **fields}
    return Load(report=LoadReport.from_manifest(report), received=NOW + timedelta(seconds=seconds))


def serves(name: str = "time", version: str = "v1", **fields: Any) -> Object:
    """What a gateway says about a version that is fine."""
    return {"name": name, "version": version, "ready": 1, "state": "ready", "tools": 2, **fields}


def server_status(name: str = "time", version: str = "v1", **fields: Any) -> Object:
    """An entry of status.servers."""
    usual = {"state": "Ready", "reason": "Available", "ready": 1, "desired": 1, "since": at(-600)}
    return {"name": name, "version": version, **usual, **fields}
