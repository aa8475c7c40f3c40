"""A tool server's objects: a Deployment and a headless Service for each of its versions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pinnace_operator.api.fields import quantity_value
from pinnace_operator.api.toolsandbox import ToolSandboxSpec
from pinnace_operator.api.toolserver import ServerVersion, ToolServer, Transport
from pinnace_operator.builders import environment, workload
from pinnace_operator.builders.identity import Identity
from pinnace_operator.builders.networkpolicy import reaches_internet
from pinnace_operator.builders.toolsandbox import SERVER, SERVER_PORT, Installation, Names, drain_seconds

Object = dict[str, Any]

_RESOURCES = {"requests": {"cpu": "20m", "memory": "64Mi"}, "limits": {"memory": "512Mi"}}


def version(identity: Identity, server: ToolServer, version: ServerVersion) -> workload.Workload:
    return workload.Workload(
        identity=identity,
        name=Names(identity.name).version(server.name, version.name),
        role=SERVER,
        own_labels={workload.SERVER: server.name, workload.VERSION: version.name},
    )


def deployment(
    identity: Identity,
    spec: ToolSandboxSpec,
    server: ToolServer,
    wanted: ServerVersion,
    *,
    replicas: int,
    installation: Installation,
) -> Object:
    """The pods of one version: our bridge in front of a server of the catalogue or a program, or the user's image."""
    grace = drain_seconds(spec, server.name)
    resources = server.resources.to_manifest() if server.resources else _RESOURCES
    command, args = _command(server, resources, grace)
    container = workload.container(
        "server", wanted.image or server.image or installation.tools_image,
        command=command, args=args, port=server.port or SERVER_PORT, pull_policy=installation.pull_policy,
        env=_environment(server, wanted), mounts=[workload.TMP, workload.SHM],
        resources=resources,
    )  # fmt: skip
    if server.env_from:
        container["envFrom"] = [{"secretRef": {"name": each.secret_name}} for each in server.env_from]
    container = workload.with_tcp_probes(container) if _speaks_http(server) else workload.with_probes(container)
    pod = workload.pod(
        [container], volumes=workload.SCRATCH_VOLUMES, grace_seconds=grace,
        runtime_class=server.runtime_class_name, pull_secrets=[each.name for each in spec.image_pull_secrets],
    )  # fmt: skip
    return workload.deployment(version(identity, server, wanted), pod, replicas=replicas)


def service(identity: Identity, server: ToolServer, wanted: ServerVersion) -> Object:
    """Headless: the gateway picks the pod itself, from the endpoints."""
    return workload.service(version(identity, server, wanted), port=server.port or SERVER_PORT, headless=True)


def disruption_budget(identity: Identity, server: ToolServer) -> Object:
    """One for all versions: they stand in for each other."""
    name = Names(identity.name).server(server.name)
    every = workload.Workload(
        identity=identity, name=name, role=SERVER, own_labels={workload.SERVER: server.name}
    )  # fmt: skip
    return workload.disruption_budget(every, name)


def _command(server: ToolServer, resources: Mapping[str, Any], grace: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(command, args) of the container."""
    if _speaks_http(server):
        return server.command, server.args
    options = ("--drain-seconds", str(grace), "--call-seconds", str(grace), *_memory(resources))
    what = (server.catalogue,) if server.catalogue else ("--", *server.command, *server.args)
    return ("pinnace", "tools", "serve"), (*options, *what)


def _speaks_http(server: ToolServer) -> bool:
    return server.image is not None and server.transport is not Transport.STDIO


def _memory(resources: Mapping[str, Any]) -> tuple[str, ...]:
    """A server that grows is replaced by its supervisor, between two calls, before the kernel ends both."""
    limit = (resources.get("limits") or {}).get("memory")
    if limit is None:
        return ()
    return ("--memory-mib", str(max(16, int(quantity_value(limit) * 3 / 4) >> 20)))


def _environment(server: ToolServer, wanted: ServerVersion) -> list[Object]:
    plain = environment.plain
    # The bridge hands a server only what is meant for it; what a Secret holds is not known here.
    declared = [*(each.name for each in server.env), *(["*"] if server.env_from else [])]
    ours = [
        plain("HOME", "/tmp"),  # noqa: S108 -- a path in the pod
        {"name": "PINNACE_POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        plain("PINNACE_TOOLS_SERVER", server.name),
        plain("PINNACE_TOOLS_VERSION", wanted.name),
        plain("PINNACE_SERVER_ENV", ",".join(declared)),
        # Tools that need the internet say at once that they have none, instead of waiting for a policy's silence.
        plain("PINNACE_INTERNET", "allowed" if reaches_internet(server.egress) else "denied"),
    ]
    return environment.merged(ours, [plain(each.name, each.value) for each in server.env])
