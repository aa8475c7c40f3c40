"""The sandboxes' objects: a Deployment whose pods are leased one by one.

Two containers: the agent, which is trusted and holds the key, and the sandbox, which runs what nobody has read. They
share a socket and nothing else: no group, no file, no process namespace, no secret, no token. What the sandbox must
not have is as important as what it has: no environment, no probe, no hook (each would be a process among the code's).
"""

from __future__ import annotations

from typing import Any

from pinnace_operator.api.toolsandbox import ToolSandboxSpec
from pinnace_operator.api.toolsessions import BUILT_IN, Sessions
from pinnace_operator.builders import environment, workload
from pinnace_operator.builders.gateway import key_mount, key_volume
from pinnace_operator.builders.identity import Identity
from pinnace_operator.builders.networkpolicy import reaches_internet
from pinnace_operator.builders.pod import USER
from pinnace_operator.builders.toolsandbox import AGENT_PORT, SESSION, Installation, Names

Object = dict[str, Any]

AGENT, SANDBOX = "agent", "sandbox"
UNTRUSTED_USER = USER + 1
GRACE_SECONDS = 30
_AGENT_RESOURCES = {"requests": {"cpu": "20m", "memory": "64Mi"}, "limits": {"memory": "256Mi"}}
_LEASE_MIB = 768
"""What a lease, /tmp, shared memory and the executor itself need besides the workspace (docs/isolation.md, Pod)."""
_SOCKET: Object = {"name": "socket", "mountPath": "/run/sandbox"}


def session(identity: Identity) -> workload.Workload:
    return workload.Workload(identity=identity, name=Names(identity.name).session, role=SESSION)


def deployment(
    identity: Identity, spec: ToolSandboxSpec, sessions: Sessions, *, replicas: int, installation: Installation
) -> Object:
    """The pool."""
    names = Names(identity.name)
    image, pull_policy = installation.tools_image, installation.pull_policy
    agent = workload.container(
        AGENT, image, command=("pinnace", "tools", "sandbox"), args=_settings(sessions, spec.session_servers),
        port=AGENT_PORT, pull_policy=pull_policy, env=_environment(sessions), resources=_AGENT_RESOURCES,
        mounts=[{"name": "agent-tmp", "mountPath": "/tmp"}, key_mount(), _SOCKET],  # noqa: S108 -- a path in the pod
    )  # fmt: skip
    sandbox = workload.container(
        SANDBOX, image, command=("pinnace", "tools", "executor"),
        args=_executor_settings(sessions, spec.session_servers), pull_policy=pull_policy, env=(), user=UNTRUSTED_USER,
        resources=_resources(sessions),
        # Read-only, so that code can't put another socket in the agent's place.
        mounts=[workload.TMP, {"name": "workspace", "mountPath": "/workspace"}, {**_SOCKET, "readOnly": True}],
    )  # fmt: skip
    pod = workload.pod(
        [workload.with_probes(agent, ready_seconds=1), sandbox],
        volumes=_volumes(names, sessions), grace_seconds=GRACE_SECONDS,
        runtime_class=sessions.runtime_class_name, pull_secrets=[each.name for each in spec.image_pull_secrets],
    )  # fmt: skip
    # A group for the volumes would be one that both containers are in.
    del pod["securityContext"]["fsGroup"], pod["securityContext"]["fsGroupChangePolicy"]
    # Said though it is the default: processes of one container must not see those of the other.
    pod["shareProcessNamespace"] = False
    return workload.deployment(session(identity), pod, replicas=replicas)


def service(identity: Identity) -> Object:
    return workload.service(session(identity), port=AGENT_PORT, headless=True)


def disruption_budget(identity: Identity) -> Object:
    return workload.disruption_budget(session(identity), Names(identity.name).session)


def _resources(sessions: Sessions) -> dict[str, Any]:
    """Of the untrusted container; the workspace is memory, so it is in the limit."""
    if sessions.resources:
        return sessions.resources.to_manifest()
    memory = f"{_LEASE_MIB + sessions.workspace_mi_b}Mi"
    return {
        "requests": {"cpu": "50m", "memory": "128Mi"},
        "limits": {"cpu": "1", "memory": memory, "ephemeral-storage": "256Mi"},
    }


def _environment(sessions: Sessions) -> list[Object]:
    return [
        environment.plain("PINNACE_INTERNET", "allowed" if reaches_internet(sessions.egress) else "denied"),
        environment.plain("HOME", "/tmp"),  # noqa: S108 -- a path in the pod
        {"name": "PINNACE_POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
    ]


def _settings(sessions: Sessions, servers: tuple[str, ...]) -> tuple[str, ...]:
    return (
        "--servers", ",".join(servers), "--recycle", str(sessions.recycle),
        "--workspace-mib", str(sessions.workspace_mi_b), "--executor-uid", str(UNTRUSTED_USER),
    )  # fmt: skip


def _executor_settings(sessions: Sessions, servers: tuple[str, ...]) -> tuple[str, ...]:
    """It has Python, shell and files anyway."""
    hosted = ",".join(name for name in servers if name not in BUILT_IN)
    return (*(("--network",) if sessions.egress else ()), *(("--servers", hosted) if hosted else ()))


def _volumes(names: Names, sessions: Sessions) -> list[Object]:
    return [
        # Each container has a /tmp of its own: what untrusted code writes never meets the agent.
        {"name": "agent-tmp", "emptyDir": {"sizeLimit": "64Mi"}},
        {"name": "tmp", "emptyDir": {"medium": "Memory", "sizeLimit": "64Mi"}},
        {"name": "socket", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
        {"name": "workspace", "emptyDir": {"medium": "Memory", "sizeLimit": f"{sessions.workspace_mi_b}Mi"}},
        key_volume(names, mode=0o444),  # without a group, and mounted by the agent only
    ]
