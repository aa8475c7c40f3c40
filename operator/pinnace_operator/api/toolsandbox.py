"""ToolSandbox: one address with many tools for agents."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field

from pinnace_operator.api.base import ApiModel, ListType, Rule
from pinnace_operator.api.metadata import ObjectMeta
from pinnace_operator.api.pod import ImagePullSecret
from pinnace_operator.api.shared import StorageRef
from pinnace_operator.api.toolgateway import Gateway
from pinnace_operator.api.toolpolicy import ToolPolicy
from pinnace_operator.api.toolsandbox_status import ToolSandboxStatus
from pinnace_operator.api.toolserver import Isolation, ToolServer
from pinnace_operator.api.toolsessions import Sessions

LONGEST_NAME = 24
_NAME = r"[a-z]([-a-z0-9]*[a-z0-9])?"


def _aliases_differ(spec: ToolSandboxSpec) -> bool:
    aliases = [each.alias for each in spec.tools if each.alias]
    return len(set(aliases)) == len(aliases)


def _servers_exist(spec: ToolSandboxSpec) -> bool:
    known = {each.name for each in spec.servers} | set(spec.sessions.servers if spec.sessions else ())
    return all(each.server in known for each in spec.tools)


class ToolSandboxSpec(ApiModel):
    """Which tools agents get, and how they are served. Servers, tools or sessions can change at any time."""

    servers: Annotated[tuple[ToolServer, ...], Field(max_length=64), ListType("map", ("name",))] = ()
    """The MCP servers. Adding, changing or removing one reaches the gateway in about a second and loses no call."""
    tools: Annotated[tuple[ToolPolicy, ...], Field(max_length=128), ListType("map", ("name",))] = ()
    """Tools that need another name, other limits or backups; all others are served as their server gives them."""
    sessions: Sessions | None = None
    """Sandboxes for code, one for each trajectory; absent: none."""
    gateway: Gateway = Field(default_factory=Gateway)
    storage: StorageRef = Field(default_factory=StorageRef)
    """Where results that are too large for an answer, snapshots and recordings go."""
    image_pull_secrets: Annotated[tuple[ImagePullSecret, ...], Field(max_length=8), ListType("map", ("name",))] = ()
    """Secrets for registries that need a login."""
    suspend: bool = False
    """True: no pods run; the address, the keys and the configuration stay."""

    rules = (
        Rule(
            "(has(self.servers) && size(self.servers) > 0) || has(self.sessions)",
            "servers: there is nothing to serve: add a server, or sessions",
            lambda spec: bool(spec.servers) or spec.sessions is not None,
        ),
        Rule(
            "!has(self.tools) || self.tools.all(t, !has(t.alias)"
            " || self.tools.exists_one(u, has(u.alias) && u.alias == t.alias))",
            "tools: two tools have the same alias: agents could not tell them apart, so change one",
            _aliases_differ,
            field=".tools",
        ),
        Rule(
            "!has(self.tools) || self.tools.all(t,"
            " (has(self.servers) && self.servers.exists(s, t.name.startsWith(s.name + '.')))"
            " || (has(self.sessions) && self.sessions.servers.exists(s, t.name.startsWith(s + '.'))))",
            "tools.name: it begins with the name of a server that is in neither spec.servers nor sessions.servers: "
            "correct it, or add the server",
            _servers_exist,
            field=".tools",
        ),
        Rule(
            "has(self.sessions) || !has(self.servers) || self.servers.all(s, s.isolation != 'Session')",
            "servers: isolation Session needs sandboxes to run in: add sessions, or use isolation Shared",
            lambda spec: (
                spec.sessions is not None or all(each.isolation is not Isolation.SESSION for each in spec.servers)
            ),
            field=".servers",
        ),
    )

    @property
    def session_servers(self) -> tuple[str, ...]:
        """Names of what runs in every sandbox, sorted."""
        own = [each.catalogue or each.name for each in self.servers if each.isolation is Isolation.SESSION]
        return tuple(sorted({*(self.sessions.servers if self.sessions else ()), *own}))


class ToolSandbox(ApiModel):
    """Serves tools to agents behind one address: MCP servers with replicas, versions and backups, and code sandboxes.

    A small example: `spec: {servers: [{name: time, catalogue: time}], sessions: {warm: 2}}`.
    """

    api_version: Literal["pinnace.dev/v1alpha1"] = "pinnace.dev/v1alpha1"
    kind: Literal["ToolSandbox"] = "ToolSandbox"
    metadata: ObjectMeta
    spec: ToolSandboxSpec
    status: ToolSandboxStatus = Field(default_factory=ToolSandboxStatus)

    rules = (
        Rule(
            f"size(self.metadata.name) <= {LONGEST_NAME}",
            f"metadata.name: at most {LONGEST_NAME} characters, because Services are named after the ToolSandbox, its "
            "servers and their versions: choose a shorter name",
            lambda sandbox: len(sandbox.metadata.name) <= LONGEST_NAME,
        ),
        Rule(
            f"self.metadata.name.matches(r'^(?:{_NAME})$')",
            "metadata.name: must start with a letter and have only lower-case letters, digits and '-', because it "
            "becomes a DNS label: choose such a name",
            lambda sandbox: re.fullmatch(_NAME, sandbox.metadata.name) is not None,
        ),
    )
