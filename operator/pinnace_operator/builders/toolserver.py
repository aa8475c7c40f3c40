"""A tool server's objects: a Deployment and a headless Service for each of its versions."""

from __future__ import annotations

from typing import Any

from pinnace_operator.api.toolsandbox import ToolSandboxSpec
from pinnace_operator.api.toolserver import ServerVersion, ToolServer, Transport
from pinnace_operator.builders import environment, workload
from pinnace_operator.builders.identity import Identity
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
    speaks_http = server.image is not None and server.transport is not Transport.STDIO
    command, args = _command(server)
    container = workload.container(
        "server", wanted.image or server.image or installation.tools_image,
        command=command, args=args, port=server.port or SERVER_PORT, pull_policy=installation.pull_policy,
        env=_environment(server, wanted, grace), mounts=[workload.TMP, workload.SHM],
        resources=server.resources.to_manifest() if server.resources else _RESOURCES,
    )  # fmt: skip
    if server.env_from:
        container["envFrom"] = [{"secretRef": {"name": each.secret_name}} for each in server.env_from]
    container = workload.with_tcp_probes(container) if speaks_http else workload.with_probes(container)
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


def _command(server: ToolServer) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(command, args) of the container."""
    if server.catalogue:
        return ("pinnace", "tools", "serve", server.catalogue), server.args
    if server.transport is Transport.STDIO:
        return ("pinnace", "tools", "serve", "--"), (*server.command, *server.args)
    return server.command, server.args


def _environment(server: ToolServer, wanted: ServerVersion, grace: int) -> list[Object]:
    plain = environment.plain
    ours = [
        plain("HOME", "/tmp"),  # noqa: S108 -- a path in the pod
        {"name": "PINNACE_POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        plain("PINNACE_TOOLS_SERVER", server.name),
        plain("PINNACE_TOOLS_VERSION", wanted.name),
        plain("PINNACE_TOOLS_MAX_IN_FLIGHT", str(server.max_in_flight)),
        plain("PINNACE_TOOLS_DRAIN_SECONDS", str(grace)),
    ]
    return environment.merged(ours, [plain(each.name, each.value) for each in server.env])
