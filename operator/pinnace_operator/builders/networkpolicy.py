"""Who may talk to whom: nobody, except what is said here."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from typing import Any

from pinnace_operator.api.toolsandbox import ToolSandboxSpec
from pinnace_operator.api.toolserver import EgressRule, ToolServer
from pinnace_operator.api.toolsessions import Sessions
from pinnace_operator.builders.identity import Identity
from pinnace_operator.builders.toolsandbox import (
    AGENT_PORT,
    GATEWAY,
    GATEWAY_PORT,
    SERVER,
    SERVER_PORT,
    SESSION,
    Installation,
    Names,
    port_of,
)
from pinnace_operator.builders.workload import SERVER as SERVER_LABEL
from pinnace_operator.builders.workload import metadata, selector

Object = dict[str, Any]

# Where clouds tell a pod who it is and what it may do: a larger range does not open these, only naming them does.
_METADATA = (ipaddress.ip_network("169.254.0.0/16"), ipaddress.ip_network("fd00:ec2::254/128"))
_PRIVATE = tuple(
    ipaddress.ip_network(each)
    for each in (
        "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16",
        "fc00::/7", "fe80::/10", "::1/128",
    )
)  # fmt: skip
DNS: Object = {"ports": [{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}]}


def default_deny(identity: Identity) -> Object:
    """For all pods of the ToolSandbox, also those that a policy of their own does not cover any more."""
    labels = identity.labels(GATEWAY)
    return policy(identity, Names(identity.name).default_policy, labels, selector(identity), [], [])


def gateway(identity: Identity, spec: ToolSandboxSpec, installation: Installation) -> Object:
    """In: anyone, on its port (it asks for a token). Out: servers, sandboxes, other gateways, DNS, the API server, the
    operator, S3."""
    servers = {each.port or SERVER_PORT for each in spec.servers}
    egress: list[Object] = [
        DNS,
        to_pods(selector(identity, SERVER), sorted(servers | {SERVER_PORT})),
        to_pods(selector(identity, SESSION), [AGENT_PORT]),
        to_pods(selector(identity, GATEWAY), [GATEWAY_PORT]),
        _anywhere(spec, installation),
    ]
    name, labels = Names(identity.name).gateway, identity.labels(GATEWAY)
    return policy(identity, name, labels, selector(identity, GATEWAY), [{"ports": tcp([GATEWAY_PORT])}], egress)


def server(identity: Identity, tool_server: ToolServer) -> Object:
    """In: the gateway. Out: DNS and the allow-list."""
    own = {SERVER_LABEL: tool_server.name}
    return policy(
        identity,
        Names(identity.name).server(tool_server.name),
        {**identity.labels(SERVER), **own},
        selector(identity, SERVER, own),
        [_from_gateway(identity, tool_server.port or SERVER_PORT)],
        [DNS, *_allowed(tool_server.egress)],
    )


def sessions(identity: Identity, wanted: Sessions) -> Object:
    """In: the gateway. Out: the allow-list, and DNS only where there is one (names carry data out, too)."""
    allowed = _allowed(wanted.egress)
    return policy(
        identity,
        Names(identity.name).session,
        identity.labels(SESSION),
        selector(identity, SESSION),
        [_from_gateway(identity, AGENT_PORT)],
        [DNS, *allowed] if allowed else [],
    )


def policy(
    identity: Identity,
    name: str,
    labels: Mapping[str, str],
    pods: Mapping[str, str],
    ingress: list[Object],
    egress: list[Object],
) -> Object:
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": metadata(identity, name, labels),
        "spec": {
            "podSelector": {"matchLabels": dict(pods)},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": ingress,
            "egress": egress,
        },
    }


def _from_gateway(identity: Identity, port: int) -> Object:
    return {"from": [{"podSelector": {"matchLabels": selector(identity, GATEWAY)}}], "ports": tcp([port])}


def to_pods(pods: Mapping[str, str], ports: Iterable[int]) -> Object:
    return {"to": [{"podSelector": {"matchLabels": dict(pods)}}], "ports": tcp(ports)}


def _anywhere(spec: ToolSandboxSpec, installation: Installation) -> Object:
    """TCP to the API server, the operator and S3, whose addresses policies can't name. Where S3 is known to the
    namespace's Secret only, its port is not known here, and all are open: the gateway is our own code."""
    storage = spec.storage.endpoint or installation.storage_defaults.get("endpoint") or ""
    s3, operator = port_of(storage), port_of(installation.progress_url)
    if s3 is None:
        return {"ports": [{"protocol": "TCP"}]}
    return {"ports": tcp(sorted({s3, *installation.gateway_egress_ports, *([operator] if operator else [])}))}


def anywhere(s3: int | None, ports: Iterable[int]) -> Object:
    """These ports outside the cluster, and S3's. All TCP where only the namespace's Secret knows where S3 is: the pods
    run our own code."""
    if s3 is None:
        return {"ports": [{"protocol": "TCP"}]}
    return {"ports": tcp(sorted({s3, *ports}))}


def _allowed(rules: Iterable[EgressRule]) -> list[Object]:
    found = []
    for rule in rules:
        network = ipaddress.ip_network(rule.cidr, strict=False)
        inside = [str(each) for each in _METADATA if each.version == network.version and _strictly(each, network)]
        block = {"cidr": str(network), **({"except": inside} if inside else {})}
        found.append(
            {"to": [{"ipBlock": block}], "ports": tcp(sorted(rule.ports)) if rule.ports else [{"protocol": "TCP"}]}
        )
    return found


def reaches_internet(rules: Iterable[EgressRule]) -> bool:
    """Whether the allow-list holds more than private networks."""
    networks = [ipaddress.ip_network(rule.cidr, strict=False) for rule in rules]
    return any(
        not any(network.version == each.version and network.subnet_of(each) for each in _PRIVATE)  # type: ignore[arg-type]  # the same version
        for network in networks
    )


def _strictly(inner: Any, outer: Any) -> bool:
    return bool(inner != outer and inner.subnet_of(outer))


def tcp(ports: Iterable[int]) -> list[Object]:
    return [{"protocol": "TCP", "port": port} for port in ports]
