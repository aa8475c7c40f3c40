"""ToolSandbox: what has to exist for it, what must go, and what its status says."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pydantic import ValidationError

from pinnace_operator.api.toolsandbox import ToolSandbox, ToolSandboxSpec
from pinnace_operator.api.toolsandbox_status import ToolSandboxStatus
from pinnace_operator.api.toolserver import Isolation
from pinnace_operator.builders import gateway, gateway_config, networkpolicy, sessions, toolserver
from pinnace_operator.builders.identity import Identity
from pinnace_operator.builders.workload import SERVER, VERSION
from pinnace_operator.reconcile import backups, front, invalid, pool, server, serving
from pinnace_operator.reconcile.plan import Observed, Plan, Prune, Raw
from pinnace_operator.reconcile.recall import recall
from pinnace_operator.reconcile.sandbox import Sandbox

_PRUNED = ("Deployment", "Service", "NetworkPolicy", "PodDisruptionBudget")
"""Kinds whose objects come and go with the spec; all others stay until the garbage collector takes them."""


def reconcile(resource: Raw, observed: Observed) -> Plan:
    """What to do for a ToolSandbox (as the API server returns it)."""
    identity = Identity.of(resource)
    before = recall(ToolSandboxStatus, resource.get("status"))
    if resource["metadata"].get("deletionTimestamp"):
        return Plan(status=before.to_manifest())  # the garbage collector takes the children
    try:
        spec = _parse(resource)
    except ValidationError as error:
        return _invalid(identity, before, observed, invalid.problems(error))
    problem = backups.problem(spec)
    if problem:
        return _invalid(identity, before, observed, problem)
    return _plan(Sandbox(identity=identity, spec=spec, before=before, observed=observed))


def references(_resource: Raw) -> tuple[tuple[str, str], ...]:
    """It waits for no other resource."""
    return ()


def _parse(resource: Raw) -> ToolSandboxSpec:
    # Without the status: whether that can be read is another question.
    return ToolSandbox.from_manifest({name: value for name, value in resource.items() if name != "status"}).spec


def _invalid(identity: Identity, before: ToolSandboxStatus, observed: Observed, fact: str) -> Plan:
    """A spec that the API server let through and that can't work: nothing is changed, what was served goes on."""
    after = serving.invalid(before, identity.generation, observed.now, fact)
    return Plan(status=after.to_manifest(), events=tuple(serving.between(before, after, ())))


def _plan(sandbox: Sandbox) -> Plan:
    wanted = [
        server.look(sandbox, each, version) for each in sandbox.spec.servers for version in each.all_versions
    ]  # fmt: skip
    draining = _draining(sandbox)
    views = serving.Views(
        gateway=front.look(sandbox),
        servers=(*wanted, *draining.values()),
        pool=pool.look(sandbox, sandbox.spec.sessions) if sandbox.spec.sessions else None,
    )
    children = _children(sandbox, views)
    after = serving.write(sandbox, views)
    waits = [views.gateway.requeue_after, *(each.requeue_after for each in views.servers)]
    waits += [views.pool.requeue_after] if views.pool else []
    return Plan(
        status=after.to_manifest(),
        children=children,
        prune=(*_unwanted(sandbox, children, set(draining)), *(views.pool.prune if views.pool else ())),
        secrets=front.secrets(sandbox),
        events=tuple(serving.between(sandbox.before, after, views.servers)),
        requeue_after=min((each for each in waits if each), default=None),
    )


def _children(sandbox: Sandbox, views: serving.Views) -> tuple[dict[str, Any], ...]:
    """In the order in which they are applied: the gateway's configuration first, because it is what agents notice;
    policies before the pods that they bind."""
    identity, spec = sandbox.identity, sandbox.spec
    deployed = [each for each in spec.servers if each.isolation is Isolation.SHARED]
    found = [
        gateway_config.config_map(identity, spec),
        *gateway.rights(identity),
        networkpolicy.default_deny(identity),
        networkpolicy.gateway(identity, spec, sandbox.installation),
        *(networkpolicy.server(identity, each) for each in deployed),
        *([networkpolicy.sessions(identity, spec.sessions)] if spec.sessions else []),
        gateway.service(identity),
        views.gateway.deployment,
        *(child for view in views.servers for child in view.children),
        *(views.pool.children if views.pool else ()),
        gateway.disruption_budget(identity),
        *(toolserver.disruption_budget(identity, each) for each in deployed),
        *([sessions.disruption_budget(identity)] if spec.sessions else []),
    ]
    return tuple(found)


def _draining(sandbox: Sandbox) -> dict[str, server.View]:
    """By the name of its Deployment: versions that left the spec and still have, or could get, calls."""
    wanted = {
        sandbox.names.version(each.name, version.name)
        for each in sandbox.spec.servers
        if each.isolation is Isolation.SHARED
        for version in each.all_versions
    }
    found = {}
    for (kind, name), child in sorted(sandbox.children.items()):
        labels = child["metadata"].get("labels") or {}
        ours = kind == "Deployment" and name not in wanted and {SERVER, VERSION} <= labels.keys()
        if ours and not child["metadata"].get("deletionTimestamp"):
            view = server.drain(sandbox, child)
            if view:
                found[name] = view
    return found


def _unwanted(sandbox: Sandbox, children: Iterable[Raw], draining: set[str]) -> Iterable[Prune]:
    """What the spec does not ask for any more. What belongs to a server goes after its last Deployment."""
    wanted = {(str(each["kind"]), str(each["metadata"]["name"])) for each in children}
    left = {
        str((child["metadata"].get("labels") or {}).get(SERVER, ""))
        for (kind, _), child in sandbox.children.items()
        if kind == "Deployment"
    }
    for (kind, name), child in sorted(sandbox.children.items()):
        meta = child["metadata"]
        if kind not in _PRUNED or (kind, name) in wanted or meta.get("deletionTimestamp"):
            continue
        labels = meta.get("labels") or {}
        versioned = VERSION in labels
        if name in draining if versioned else labels.get(SERVER) in left:
            continue
        yield Prune(
            api_version=str(child["apiVersion"]), kind=kind, name=name, uid=str(meta["uid"]), propagation="Background"
        )
