"""gateway.json: what the gateways serve (docs/toolsandbox-contract.md §3). The same spec gives the same bytes."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from pinnace_operator.api.toolpolicy import Backup, ToolPolicy, literal
from pinnace_operator.api.toolsandbox import ToolSandboxSpec
from pinnace_operator.api.toolserver import Isolation, ToolServer
from pinnace_operator.api.toolsessions import Sessions
from pinnace_operator.builders.identity import Identity
from pinnace_operator.builders.toolsandbox import AGENT_PORT, GATEWAY, MCP_PATH, SERVER_PORT, Names
from pinnace_operator.builders.workload import metadata

KEY = "gateway.json"
HASH = "pinnace.dev/content-hash"
_FAILURE_THRESHOLD, _EJECTION_SECONDS = 5, 10

Object = dict[str, Any]


def config_map(identity: Identity, spec: ToolSandboxSpec) -> Object:
    """The ConfigMap that the gateways watch."""
    text = rendered(document(identity, spec))
    meta = metadata(identity, Names(identity.name).gateway, identity.labels(GATEWAY))
    meta["annotations"] = {HASH: "sha256:" + hashlib.sha256(text.encode()).hexdigest()}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {KEY: text}}


def rendered(document: Object) -> str:
    return json.dumps(document, sort_keys=True, indent=1, ensure_ascii=False) + "\n"


def document(identity: Identity, spec: ToolSandboxSpec) -> Object:
    """All lists are sorted by name, so that the order in the spec changes nothing (backups keep theirs: it counts)."""
    gateway, names = spec.gateway, Names(identity.name)
    found: Object = {
        "version": 1,
        "generation": identity.generation,
        "name": identity.name,
        "namespace": identity.namespace,
        "uid": identity.uid,
        "servers": [_server(names, each) for each in sorted(spec.servers, key=lambda each: each.name)],
        "tools": [_tool(each) for each in sorted(spec.tools, key=lambda each: (each.server, each.tool))],
        "limits": {
            "requestBytes": gateway.request_bytes,
            "resultBytes": gateway.result_bytes,
            "defaultTimeoutSeconds": gateway.default_timeout_seconds,
            "maxInFlight": gateway.max_in_flight,
            "maxQueueSeconds": gateway.max_queue_seconds,
            "retryBudgetPercent": gateway.retry_budget_percent,
        },
        "auth": {"mode": str(gateway.auth.mode)},
    }
    if spec.sessions:
        found["sessions"] = _sessions(names, spec.sessions, spec.session_servers)
    return found


def _server(names: Names, server: ToolServer) -> Object:
    filters = server.tools
    inside = server.isolation is Isolation.SESSION
    return {
        "name": server.name,
        **({"catalogue": server.catalogue} if inside else {}),
        "isolation": str(server.isolation),
        "versions": _versions(names, server),
        "scale": _scale(server),
        "include": sorted(filters.include) if filters else [],
        "exclude": sorted(filters.exclude) if filters else [],
        "maxInFlightPerReplica": server.max_in_flight,
        "queue": server.queue,
        "failureThreshold": _FAILURE_THRESHOLD,
        "ejectionSeconds": _EJECTION_SECONDS,
    }


def _versions(names: Names, server: ToolServer) -> list[Object]:
    if server.isolation is Isolation.SESSION:
        return [{"name": "v1", "weight": 100, "service": names.session, "port": AGENT_PORT, "path": MCP_PATH}]
    where = {"port": server.port or SERVER_PORT, "path": server.path or MCP_PATH}
    return [
        {"name": each.name, "weight": each.weight, "service": names.version(server.name, each.name), **where}
        for each in sorted(server.all_versions, key=lambda each: each.name)
    ]


def _scale(server: ToolServer) -> Object:
    if server.scale:
        scale = server.scale
        return {"min": scale.min_replicas, "max": scale.max_replicas, "targetInFlight": scale.target_in_flight}
    fixed = [each.replicas for each in server.all_versions if each.weight]
    return {"min": min(fixed), "max": max(1, *fixed), "targetInFlight": server.max_in_flight}


def _tool(policy: ToolPolicy) -> Object:
    found: Object = {
        "server": policy.server,
        "tool": policy.tool,
        "cacheTtlSeconds": policy.cache_ttl_seconds,
        "retry": str(policy.retry),
        "backups": [_backup(each) for each in policy.backups],
    }
    if policy.alias:
        found["alias"] = policy.alias
    if policy.timeout_seconds:
        found["timeoutSeconds"] = policy.timeout_seconds
    if policy.rate_limit:
        found["rateLimit"] = {"perSecond": policy.rate_limit.per_second, "burst": policy.rate_limit.burst}
    return found


def _backup(backup: Backup) -> Object:
    mappings = {"argumentMapping": backup.argument_mapping, "resultMapping": backup.result_mapping}
    given = {
        name: {field: literal(value) for field, value in mapping.items()}
        for name, mapping in mappings.items()
        if mapping is not None
    }
    return {"tool": backup.tool, **given}


def _sessions(names: Names, sessions: Sessions, servers: tuple[str, ...]) -> Object:
    return {
        "service": names.session,
        "port": AGENT_PORT,
        "max": sessions.max,
        "idleSeconds": sessions.idle_seconds,
        "hardSeconds": sessions.hard_seconds,
        "recycle": str(sessions.recycle),
        "servers": list(servers),
    }
