"""One version of one tool server: how many pods it has, and what it does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pinnace_operator.api.conditions import Reason
from pinnace_operator.api.toolsandbox_status import ServerState, ServerStatus
from pinnace_operator.api.toolserver import Isolation, ServerVersion, ToolServer
from pinnace_operator.builders import toolserver, workload
from pinnace_operator.builders.toolsandbox import SERVER
from pinnace_operator.reconcile import clock, trouble
from pinnace_operator.reconcile.plan import Raw
from pinnace_operator.reconcile.sandbox import Sandbox, ready_pods
from pinnace_operator.reconcile.scale import Bounds, Size, resize
from pinnace_operator.reconcile.trouble import Trouble, told

DRAIN_SECONDS = 120
"""A removed version goes at the latest so long after it left the spec, whatever gateways say or don't."""
_LONGEST = 4096


@dataclass(frozen=True, kw_only=True)
class View:
    """What is the case with one version, and what has to exist for it."""

    status: ServerStatus
    children: tuple[dict[str, Any], ...] = ()
    trouble: Trouble | None = None
    """What keeps some or all of its pods from serving."""
    serves: bool = True
    """It answers calls, or would at the next one."""
    weight: int = 0
    calls: int | None = None
    requeue_after: int | None = None


def look(sandbox: Sandbox, server: ToolServer, wanted: ServerVersion) -> View:
    """A version that is in the spec."""
    if server.isolation is Isolation.SESSION:
        return _in_sessions(sandbox, server, wanted)
    name = sandbox.names.version(server.name, wanted.name)
    before = sandbox.server_before(server.name, wanted.name)
    deployment = sandbox.deployment(name)
    calls = sandbox.calls(server.name, wanted.name)
    size = _size(sandbox, server, wanted, deployment, calls)
    pods = sandbox.pods(SERVER, server=server.name, version=wanted.name)
    ready = ready_pods(pods)
    shared = sandbox.names.server(server.name)
    objects = [("Deployment", name), ("Service", name), ("NetworkPolicy", shared), ("PodDisruptionBudget", shared)]
    found = trouble.of(sandbox, pods, deployment, objects, slow=Reason.CONTRACT_FAILED)
    state, reason, message = _state(sandbox, server, wanted, ready, size, found)
    status = ServerStatus(
        name=server.name,
        version=wanted.name,
        state=state,
        reason=reason,
        message=message[:_LONGEST],
        ready=ready,
        desired=size.replicas,
        tools=_tools(sandbox, before, server.name, wanted.name),
        since=before.since if before and before.state is state and before.since else sandbox.now,
        last_busy_time=size.busy,
    )
    children = (
        toolserver.service(sandbox.identity, server, wanted),
        toolserver.deployment(
            sandbox.identity, sandbox.spec, server, wanted,
            replicas=size.replicas, installation=sandbox.installation,
        ),
    )  # fmt: skip
    return View(
        status=status, children=children, trouble=found, weight=wanted.weight, calls=calls,
        serves=_serves(state, reason, ready),
        requeue_after=trouble.next_look(pods, sandbox.now),
    )  # fmt: skip


def drain(sandbox: Sandbox, deployment: Raw) -> View | None:
    """A version that left the spec; None when it is done with: then its Deployment and Service go."""
    labels = deployment["metadata"]["labels"]
    server, version = str(labels[workload.SERVER]), str(labels[workload.VERSION])
    before = sandbox.server_before(server, version)
    since = before.since if before and before.state is ServerState.DRAINING and before.since else sandbox.now
    left = clock.remaining(since, DRAIN_SECONDS, sandbox.now)
    if not left or not sandbox.routes_to(server, version):
        return None
    pods = sandbox.pods(SERVER, server=server, version=version)
    calls = sandbox.calls(server, version)
    known = f"{calls} calls are left" if calls else "waits until every gateway has the new configuration"
    status = ServerStatus(
        name=server,
        version=version,
        state=ServerState.DRAINING,
        reason=Reason.DRAINING,
        message=f"It left the spec; {known}.",
        ready=ready_pods(pods),
        desired=before.desired if before else _replicas(deployment) or 0,
        since=since,
        last_busy_time=before.last_busy_time if before else None,
    )
    return View(status=status, serves=False, calls=calls, requeue_after=left)


def _size(
    sandbox: Sandbox, server: ToolServer, wanted: ServerVersion, deployment: Raw | None, calls: int | None
) -> Size:
    """How many pods. What this operator decided last is in the status; what is there is the next best guess."""
    if sandbox.spec.suspend:
        return Size(replicas=0, busy=None)
    if server.scale is None:
        return Size(replicas=wanted.replicas, busy=None)
    scale = server.scale
    bounds = Bounds(
        low=scale.min_replicas, high=scale.max_replicas, target=scale.target_in_flight, cooldown=scale.cooldown_seconds
    )
    before = sandbox.server_before(server.name, wanted.name)
    if before and before.state is not ServerState.DRAINING and not _was_suspended(before):
        needed = max(calls, 1) if calls is not None and _unlisted(sandbox, server, wanted) else calls
        return resize(Size(replicas=before.desired, busy=before.last_busy_time), bounds, needed, sandbox.now)
    there = _replicas(deployment) if deployment and not (before and _was_suspended(before)) else None
    # At least one at first, also where none is needed later: the gateway has to learn its tools.
    first = max(1, wanted.replicas, scale.min_replicas) if there is None else there
    return Size(replicas=min(first, scale.max_replicas), busy=sandbox.now)


def _unlisted(sandbox: Sandbox, server: ToolServer, wanted: ServerVersion) -> bool:
    """Whether a gateway (one that has just started, say) does not know the tools yet: it needs a pod to ask."""
    return any(load.tools is None for load in sandbox.server_loads(server.name, wanted.name))


def _was_suspended(before: ServerStatus) -> bool:
    return before.reason is Reason.SUSPENDED


def _replicas(deployment: Raw) -> int | None:
    number = (deployment.get("spec") or {}).get("replicas")
    return int(number) if number is not None else None


def _state(
    sandbox: Sandbox, server: ToolServer, wanted: ServerVersion, ready: int, size: Size, found: Trouble | None
) -> tuple[ServerState, Reason, str]:
    if sandbox.spec.suspend:
        return ServerState.AT_ZERO, Reason.SUSPENDED, "spec.suspend is true."
    if ready == 0:
        return _not_serving(server, size.replicas, found)
    said = _gateways_say(sandbox, server, wanted)
    if said:
        return ServerState.FAILING, *said
    if found:
        return ServerState.READY, Reason.DEGRADED, f"{ready} of {size.replicas} pods serve. {found.message}"
    if ready != size.replicas:
        return ServerState.SCALING, Reason.SCALING, f"{ready} pods serve, {size.replicas} are wanted."
    return ServerState.READY, Reason.AVAILABLE, f"{ready} pods serve."


def _not_serving(server: ToolServer, desired: int, found: Trouble | None) -> tuple[ServerState, Reason, str]:
    if found:
        return ServerState.FAILING if found.stalled else ServerState.STARTING, found.reason, found.message
    if desired == 0:
        return ServerState.AT_ZERO, Reason.AT_ZERO, _why_zero(server)
    return ServerState.STARTING, Reason.STARTING, f"{desired} pods are being started."


def _serves(state: ServerState, reason: Reason, ready: int) -> bool:
    if state is ServerState.FAILING or reason is Reason.SUSPENDED:
        return False
    return ready > 0 or state is ServerState.AT_ZERO


def _why_zero(server: ToolServer) -> str:
    return "It is idle; the next call starts a pod and is held meanwhile." if server.scale else "Its replicas are 0."


def _gateways_say(sandbox: Sandbox, server: ToolServer, wanted: ServerVersion) -> tuple[Reason, str] | None:
    """All gateways call it failing, although its pods are ready."""
    loads = sandbox.server_loads(server.name, wanted.name)
    if not loads or any(each.state != "failing" for each in loads):
        return None
    listed = any(each.tools for each in loads)
    reason = Reason.UNAVAILABLE if listed else Reason.CONTRACT_FAILED
    said = next((each.message for each in loads if each.message), "no gateway can use it")
    return reason, told(reason, f"The gateway says: {said}")


def _tools(sandbox: Sandbox, before: ServerStatus | None, server: str, version: str) -> int | None:
    """As last listed: a server without pods still has its tools."""
    told_now = [load.tools for load in sandbox.server_loads(server, version) if load.tools is not None]
    return max(told_now) if told_now else (before.tools if before else None)


def _in_sessions(sandbox: Sandbox, server: ToolServer, wanted: ServerVersion) -> View:
    """It runs in every sandbox, so it has no pods of its own."""
    before = sandbox.server_before(server.name, wanted.name)
    said = _gateways_say(sandbox, server, wanted)
    state, (reason, message) = (
        (ServerState.FAILING, said)
        if said
        else (ServerState.READY, (Reason.AVAILABLE, "It runs in the sandbox of each lease."))
    )
    status = ServerStatus(
        name=server.name,
        version=wanted.name,
        state=state,
        reason=reason,
        message=message[:_LONGEST],
        tools=_tools(sandbox, before, server.name, wanted.name),
        since=before.since if before and before.state is state and before.since else sandbox.now,
    )
    return View(status=status, serves=said is None, weight=wanted.weight)
