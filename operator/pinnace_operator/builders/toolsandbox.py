"""Names of a ToolSandbox's objects, and what the installation decides about all of them."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from pinnace_operator.api.toolsandbox import ToolSandboxSpec
from pinnace_operator.builders.identity import Identity

GATEWAY, SERVER, SESSION = "gateway", "server", "session"
"""Roles of the pods."""
GATEWAY_PORT, SERVER_PORT, AGENT_PORT = 8080, 8080, 8081
MCP_PATH = "/mcp"
KEY_DIRECTORY = "/var/run/secrets/pinnace-tools"


@dataclass(frozen=True)
class Names:
    """The objects of the ToolSandbox of this name."""

    base: str

    @property
    def gateway(self) -> str:
        """Deployment, ConfigMap, ServiceAccount, Role, NetworkPolicy and PodDisruptionBudget of the gateway."""
        return f"{self.base}-gateway"

    @property
    def service(self) -> str:
        """The address for agents."""
        return self.base

    @property
    def keys(self) -> str:
        """Secret: the key between gateway and sandboxes."""
        return f"{self.base}-keys"

    @property
    def tokens(self) -> str:
        """Secret: tokens of agents, when the spec names none."""
        return f"{self.base}-tokens"

    @property
    def session(self) -> str:
        """Deployment, Service, NetworkPolicy and PodDisruptionBudget of the sandboxes."""
        return f"{self.base}-session"

    @property
    def default_policy(self) -> str:
        return f"{self.base}-default"

    def server(self, server: str) -> str:
        """NetworkPolicy and PodDisruptionBudget of a server."""
        return f"{self.base}-{server}"

    def version(self, server: str, version: str) -> str:
        """Deployment and Service of a version of a server."""
        return f"{self.base}-{server}-{version}"


@dataclass(frozen=True, kw_only=True)
class Installation:
    """Images, and where things are."""

    tools_image: str
    pull_policy: str
    progress_url: str
    progress_ca: str
    storage_defaults: dict[str, str]
    """endpoint, bucket, prefix, region."""
    gateway_egress_ports: tuple[int, ...]


def endpoint(identity: Identity) -> str:
    """The address for agents inside the cluster."""
    return f"http://{Names(identity.name).service}.{identity.namespace}.svc:{GATEWAY_PORT}"


def drain_seconds(spec: ToolSandboxSpec, server: str | None = None) -> int:
    """For how long a pod may finish its calls: as long as the longest that may come to it, and a little."""
    mine = [each for each in spec.tools if server is None or each.server == server]
    return 5 + max([spec.gateway.default_timeout_seconds, *(each.timeout_seconds or 0 for each in mine)])


def port_of(url: str) -> int | None:
    """The TCP port of an http(s) URL; None when it names no host."""
    parts = urlsplit(url)
    return parts.port or {"https": 443, "http": 80}.get(parts.scheme) if parts.hostname else None
