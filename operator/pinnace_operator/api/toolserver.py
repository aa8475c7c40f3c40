"""A tool server of a ToolSandbox: what runs, in which versions, how many, and what it may reach."""

from __future__ import annotations

import ipaddress
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from pinnace_operator.api.base import ApiModel, ListType, Rule, matches
from pinnace_operator.api.cataloguenames import CatalogueName
from pinnace_operator.api.fields import Image, ObjectName, whole
from pinnace_operator.api.pod import Resources

Port = Annotated[int, whole(1, 65535)]
Argument = Annotated[str, Field(max_length=1024)]
ServerName = Annotated[
    str,
    Field(min_length=1, max_length=20),
    matches(
        r"[a-z0-9]([-a-z0-9]*[a-z0-9])?",
        "must be lower-case letters, digits and '-', at most 20 of them, such as 'web-search'",
    ),
    Rule(
        "!(self in ['gateway', 'session'])",
        "gateway and session are names of the ToolSandbox's own parts: choose another name",
        lambda name: name not in ("gateway", "session"),
    ),
]
VersionName = Annotated[
    str,
    Field(min_length=1, max_length=12),
    # Without '-': the Deployment <sandbox>-<server>-<version> of one server must not be that of another.
    matches(r"[a-z0-9]+", "must be lower-case letters and digits, at most 12 of them, such as 'v2'"),
    Rule(
        "!(self in ['gateway', 'session', 'keys', 'tokens'])",
        "gateway, session, keys and tokens end names of other objects: choose a name such as 'v2'",
        lambda name: name not in ("gateway", "session", "keys", "tokens"),
    ),
]
OwnToolName = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9_./-]+$")]


class Transport(StrEnum):
    """How an image speaks MCP."""

    STDIO = "Stdio"
    HTTP = "Http"


class Isolation(StrEnum):
    """Who shares a replica."""

    SHARED = "Shared"
    SESSION = "Session"


def _is_cidr(text: str) -> bool:
    try:
        ipaddress.ip_network(text, strict=False)
    except ValueError:
        return False
    return "/" in text


class EgressRule(ApiModel):
    """One network that pods may reach. The metadata addresses of clouds are left out of larger ranges."""

    cidr: Annotated[
        str,
        Field(min_length=3, max_length=49),
        Rule("isCIDR(self)", "must be a network such as '10.0.0.0/8' or '203.0.113.7/32'", _is_cidr),
    ]
    """The network; `0.0.0.0/0` is the whole internet (and the cluster)."""
    ports: Annotated[tuple[Port, ...], Field(max_length=32), ListType("set")] = ()
    """TCP ports; absent: all."""


Egress = Annotated[tuple[EgressRule, ...], Field(max_length=32), ListType()]


_OURS = (
    "PINNACE_POD",
    "PINNACE_TOOLS_",
    "PINNACE_SERVER_",
    "PINNACE_SESSION_",
    "PINNACE_PROGRESS_",
    "PINNACE_INTERNET",
    "KUBERNETES_",
)


class ServerEnv(ApiModel):
    """An environment variable of a server, with a plain value: settings, no secrets."""

    name: Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
    """The variable's name, such as `PINNACE_WORLD_SEED`."""
    value: Annotated[str, Field(max_length=2048)] = ""
    """Its value."""

    rules = (
        Rule(
            f"!{list(_OURS)}.exists(ours, self.name.startsWith(ours))",
            f"env: names with {', '.join(_OURS)} belong to the operator: use another name",
            lambda env: not env.name.startswith(_OURS),
        ),
    )


class SecretEnv(ApiModel):
    """All keys of a Secret as environment variables, for API keys and the like."""

    secret_name: ObjectName
    """The Secret, in the ToolSandbox's namespace. Only its name is ever shown."""


class ServerVersion(ApiModel):
    """One version of a server. Several at once share its calls by weight: a canary."""

    name: VersionName
    """Name of the version, such as `v2`."""
    weight: Annotated[int, whole(0, 1000)] = 100
    """Share of the calls, relative to the other versions' weights; 0: none, but kept ready."""
    replicas: Annotated[int, whole(0, 200)] = 1
    """Pods of this version; with `scale`, how many to start with."""
    image: Image | None = None
    """The image of this version; absent: the server's (with `catalogue`: the operator's tools image)."""


class ServerScale(ApiModel):
    """How many pods each version has, decided by the operator from the calls that are under way and waiting."""

    min_replicas: Annotated[int, whole(0, 200)] = 0
    """Fewest pods. 0: none while the server is idle; the first call is held until one is ready."""
    max_replicas: Annotated[int, whole(1, 200)] = 4
    """Most pods."""
    target_in_flight: Annotated[int, whole(1, 10_000)] = 8
    """Calls that one pod should have at a time."""
    cooldown_seconds: Annotated[int, whole(5, 86_400)] = 60
    """Pods are removed only when they were not needed for so long."""

    rules = (
        Rule(
            "self.minReplicas <= self.maxReplicas",
            "scale.minReplicas: it can't be above maxReplicas: lower it or raise maxReplicas",
            lambda scale: scale.min_replicas <= scale.max_replicas,
            field=".minReplicas",
        ),
    )


class ToolFilter(ApiModel):
    """Which of a server's tools agents get; names as the server gives them."""

    include: Annotated[tuple[OwnToolName, ...], Field(max_length=256), ListType("set")] = ()
    """Only these; absent: all."""
    exclude: Annotated[tuple[OwnToolName, ...], Field(max_length=256), ListType("set")] = ()
    """All but these."""


def _given(server: ToolServer, *fields: str) -> bool:
    """Whether one of the fields stands in the manifest with something in it."""
    return any(getattr(server, field) not in (None, ()) for field in fields)


class ToolServer(ApiModel):
    """An MCP server: one of the catalogue by its name, or an image of your own.

    `{name: time, catalogue: time}` is a whole server. `{name: mine, image: registry.example.com/mine:1, port: 9000}`
    is one that speaks MCP over HTTP; with `transport: Stdio` and `command` a program that speaks it over its standard
    input, in an image built on Pinnace's tools image.
    """

    name: ServerName
    """Name of the server within this ToolSandbox; agents never see it, unless names of tools clash."""
    catalogue: CatalogueName | None = None
    """Name of the server in the catalogue, such as `time` or `arxiv`."""
    image: Image | None = None
    """An image with an MCP server."""
    transport: Transport | None = None
    """How the image speaks MCP: Http (the default), or Stdio, which `command` starts. The catalogue knows its own."""
    command: Annotated[tuple[Argument, ...], Field(max_length=64), ListType()] = ()
    """With Stdio: the server's program. With Http: what to run instead of the image's entry point."""
    args: Annotated[tuple[Argument, ...], Field(max_length=64), ListType()] = ()
    """Arguments of the program or the image's entry point."""
    port: Port | None = None
    """Port that an image with transport Http listens on; absent: 8080."""
    path: Annotated[str, Field(max_length=256, pattern=r"^/[A-Za-z0-9._~/-]*$")] | None = None
    """Path of MCP on that port; absent: `/mcp`."""
    versions: Annotated[tuple[ServerVersion, ...], Field(max_length=8), ListType("map", ("name",))] = ()
    """Versions that run at the same time; absent: one, `v1`."""
    scale: ServerScale | None = None
    """Let the operator decide the number of pods; absent: it is what each version says."""
    max_in_flight: Annotated[int, whole(1, 10_000)] = 32
    """Calls that one pod gets at a time; more wait in the gateway."""
    queue: Annotated[int, whole(0, 100_000)] = 256
    """Calls that may wait in the gateway; more are answered `overloaded` at once."""
    env: Annotated[tuple[ServerEnv, ...], Field(max_length=64), ListType("map", ("name",))] = ()
    """Environment variables. Secrets belong into `envFrom`."""
    env_from: Annotated[tuple[SecretEnv, ...], Field(max_length=16), ListType("map", ("secret_name",))] = ()
    """Secrets whose keys become environment variables."""
    resources: Resources | None = None
    """Compute resources of each pod; absent: 20m CPU and 64Mi reserved, at most 512Mi."""
    isolation: Isolation = Isolation.SHARED
    """Shared: stateless, any pod answers any call. Session: it runs in each lease's own sandbox (spec.sessions)."""
    runtime_class_name: ObjectName | None = None
    """RuntimeClass of the pods, such as `gvisor`."""
    egress: Egress = ()
    """Networks that the server may reach; absent: none but DNS."""
    tools: ToolFilter | None = None

    rules = (
        Rule(
            "has(self.catalogue) != has(self.image)",
            "servers: give exactly one of catalogue and image",
            lambda server: (server.catalogue is None) != (server.image is None),
        ),
        Rule(
            "!has(self.catalogue) || (!has(self.transport) && !has(self.port) && !has(self.path)"
            " && (!has(self.command) || size(self.command) == 0) && (!has(self.args) || size(self.args) == 0))",
            "servers: a server of the catalogue knows its transport, command, args, port and path: remove them, or use "
            "image; settings of catalogue servers are in env",
            lambda server: (
                server.catalogue is None or not _given(server, "transport", "port", "path", "command", "args")
            ),
        ),
        Rule(
            "!has(self.transport) || self.transport != 'Stdio' || (has(self.command) && size(self.command) > 0)",
            "servers: transport Stdio needs the program to start: set command",
            lambda server: server.transport is not Transport.STDIO or bool(server.command),
            field=".transport",
        ),
        Rule(
            "!has(self.transport) || self.transport != 'Stdio' || (!has(self.port) && !has(self.path))",
            "servers: transport Stdio has no port and path: remove them, or use transport Http",
            lambda server: server.transport is not Transport.STDIO or not _given(server, "port", "path"),
            field=".transport",
        ),
        Rule(
            "!has(self.versions) || size(self.versions) == 0 || self.versions.exists(v, v.weight > 0)",
            "servers: no version gets calls: give at least one a weight above 0",
            lambda server: not server.versions or any(each.weight for each in server.versions),
            field=".versions",
        ),
        Rule(
            "self.isolation != 'Session' || (has(self.catalogue) && !has(self.scale) && !has(self.resources)"
            " && !has(self.runtimeClassName) && (!has(self.versions) || size(self.versions) == 0)"
            " && (!has(self.env) || size(self.env) == 0) && (!has(self.envFrom) || size(self.envFrom) == 0)"
            " && (!has(self.egress) || size(self.egress) == 0))",
            "servers: isolation Session is for servers of the catalogue, which run in the lease's sandbox: "
            "set resources, egress and runtimeClassName in spec.sessions, and remove versions, scale, env and envFrom",
            lambda server: (
                server.isolation is not Isolation.SESSION
                or (
                    server.catalogue is not None
                    and not _given(
                        server, "scale", "resources", "runtime_class_name", "versions", "env", "env_from", "egress"
                    )
                )
            ),
            field=".isolation",
        ),
        Rule(
            "self.isolation != 'Session' || !has(self.catalogue) || self.catalogue != 'files'",
            "servers: in a sandbox, files are its own file tools: list files in sessions.servers instead, or use "
            "isolation Shared for the catalogue's reader of documents",
            lambda server: server.isolation is not Isolation.SESSION or server.catalogue != "files",
            field=".isolation",
        ),
    )

    @property
    def all_versions(self) -> tuple[ServerVersion, ...]:
        """The versions, `v1` when none is named."""
        return self.versions or (ServerVersion(name="v1"),)
