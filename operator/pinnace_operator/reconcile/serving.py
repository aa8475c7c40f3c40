"""The status of a ToolSandbox, and the events of the step to it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from pinnace_operator.api.conditions import REASONS, Condition, ConditionType, Reason, find
from pinnace_operator.api.toolsandbox_status import (
    MOST_FAILURES,
    MOST_UNHEALTHY,
    ServerState,
    ServerStatus,
    ToolFailure,
    ToolHealth,
    ToolSandboxStatus,
)
from pinnace_operator.builders.toolsandbox import endpoint
from pinnace_operator.reconcile import events, front, pool, server
from pinnace_operator.reconcile.conditions import Conditions
from pinnace_operator.reconcile.plan import EventRecord
from pinnace_operator.reconcile.sandbox import Sandbox
from pinnace_operator.reconcile.trouble import told

_NAMED = 5
"""Failing servers that a message names."""


@dataclass(frozen=True, kw_only=True)
class Views:
    """All parts as they are now."""

    gateway: front.View
    servers: tuple[server.View, ...]
    """Of the spec, then those that are drained."""
    pool: pool.View | None

    @property
    def failing(self) -> list[ServerStatus]:
        return [each.status for each in self.servers if each.status.state is ServerState.FAILING]


def write(sandbox: Sandbox, now: Views) -> ToolSandboxStatus:
    """The whole status."""
    before = sandbox.before
    tools = max((each.tools for each in sandbox.reports.values()), default=before.tools)
    tools = 0 if sandbox.spec.suspend else tools
    servers = tuple(sorted((each.status for each in now.servers), key=lambda each: (each.name, each.version)))
    after = ToolSandboxStatus(
        observed_generation=sandbox.identity.generation,
        endpoint=endpoint(sandbox.identity),
        tools=tools,
        servers_ready=_servers_ready(now.servers),
        gateway=now.gateway.status,
        servers=servers,
        sessions=now.pool.status if now.pool else None,
        unhealthy_tools=_unhealthy(sandbox),
        failures=_failures(sandbox, now, servers),
    )
    return after.model_copy(update={"conditions": _conditions(sandbox, now, tools)})


def _servers_ready(views: Sequence[server.View]) -> str:
    """By name: one version that gets calls and can answer them is enough."""
    wanted = [each for each in views if each.status.state is not ServerState.DRAINING]
    serving = {each.status.name for each in wanted if each.serves and each.weight}
    return f"{len(serving)}/{len({each.status.name for each in wanted})}"


def _unhealthy(sandbox: Sandbox) -> tuple[ToolHealth, ...]:
    if not sandbox.reports:
        return sandbox.before.unhealthy_tools
    found = {each.name: each for report in sandbox.reports.values() for each in report.unhealthy_tools}
    return tuple(found[name] for name in sorted(found))[:MOST_UNHEALTHY]


def _conditions(sandbox: Sandbox, now: Views, tools: int) -> tuple[Condition, ...]:
    conditions = Conditions(sandbox.before.conditions, now=sandbox.now, generation=sandbox.identity.generation)
    ready, reason, message = _readiness(sandbox, now, tools)
    conditions.set(ConditionType.READY, ready, reason, message)
    if sandbox.spec.suspend:
        conditions.set(ConditionType.SUSPENDED, True, Reason.SUSPENDED, "spec.suspend is true: no pods run.")
    else:
        conditions.set(ConditionType.SUSPENDED, False, Reason.RUNNING, "spec.suspend is false.")
    stalled = _stalled(now)
    if stalled and not sandbox.spec.suspend:
        conditions.set(ConditionType.STALLED, True, *stalled)
    else:
        conditions.clear(ConditionType.STALLED, reason, "Nobody has to act.")
    return conditions.all()


def _readiness(sandbox: Sandbox, now: Views, tools: int) -> tuple[bool, Reason, str]:
    """Ready as long as agents can call something: partial failure is the normal case."""
    gateway, failing = now.gateway.status, now.failing
    if sandbox.spec.suspend:
        return False, Reason.SUSPENDED, "spec.suspend is true. Set it to false to serve again."
    if not gateway.ready:
        was = find(sandbox.before.conditions, ConditionType.READY)
        fell = gateway.reason is Reason.STARTING and was is not None and was.status == "True"
        reason = Reason.UNAVAILABLE if fell else gateway.reason
        return False, reason, f"No gateway serves. {gateway.message}"
    if not tools:
        return False, *_no_tools(now)
    troubled = [f"{each.name}/{each.version}: {each.reason}" for each in failing]
    if now.pool and now.pool.trouble:
        troubled.append(f"sessions: {now.pool.trouble.reason}")
    if now.gateway.trouble or now.gateway.silent:
        troubled.append(f"gateway: {gateway.reason}")
    partly = [each.status for each in now.servers if each.status.reason is Reason.DEGRADED]
    troubled += [f"{each.name}/{each.version}: {each.ready} of {each.desired} pods" for each in partly]
    if troubled:
        more = f" and {len(troubled) - _NAMED} more" if len(troubled) > _NAMED else ""
        what = f"{tools} tools serve; not well: {', '.join(troubled[:_NAMED])}{more} (see status.servers)."
        return True, Reason.DEGRADED, what
    return True, Reason.AVAILABLE, f"{tools} tools serve."


def _no_tools(now: Views) -> tuple[Reason, str]:
    if now.gateway.silent:
        return now.gateway.status.reason, now.gateway.status.message
    wanted = [each.status for each in now.servers if each.status.state is not ServerState.DRAINING]
    if wanted and len(now.failing) == len(wanted):
        first = now.failing[0]
        return Reason.UNAVAILABLE, f"No server serves. {first.name}/{first.version}: {first.message}"
    if not wanted and now.pool and now.pool.trouble:
        return now.pool.trouble.reason, f"No sandbox serves. {now.pool.trouble.message}"
    return Reason.STARTING, "The gateway serves, and waits for the first tools."


def _stalled(now: Views) -> tuple[Reason, str] | None:
    """The first thing that a person must act on."""
    if now.gateway.trouble and now.gateway.trouble.stalled:
        return now.gateway.trouble.reason, f"gateway: {now.gateway.trouble.message}"
    if now.gateway.silent:
        return now.gateway.status.reason, f"gateway: {now.gateway.status.message}"
    for each in now.servers:
        status, where = each.status, f"{each.status.name}/{each.status.version}"
        if each.trouble and each.trouble.stalled:
            return each.trouble.reason, f"{where}: {each.trouble.message}"
        if status.state is ServerState.FAILING:
            return status.reason, f"{where}: {status.message}"
    if now.pool and now.pool.trouble and now.pool.trouble.stalled:
        return now.pool.trouble.reason, f"sessions: {now.pool.trouble.message}"
    return None


def _failures(sandbox: Sandbox, now: Views, servers: Sequence[ServerStatus]) -> tuple[ToolFailure, ...]:
    """Newest first; one that goes on is not told again."""
    before = sandbox.before
    fresh: list[tuple[str, Reason, str]] = []
    for each in servers:
        was = sandbox.server_before(each.name, each.version)
        if each.state is ServerState.FAILING and not (was and _same(was, each)):
            fresh.append((f"{each.name}/{each.version}", each.reason, each.message))
    gateway, sessions = now.gateway, now.pool
    if gateway.trouble and (before.gateway is None or before.gateway.reason is not gateway.trouble.reason):
        fresh.append(("gateway", gateway.trouble.reason, gateway.trouble.message))
    if sessions and sessions.trouble and (
        before.sessions is None or before.sessions.reason is not sessions.trouble.reason
    ):  # fmt: skip
        fresh.append(("sessions", sessions.trouble.reason, sessions.trouble.message))
    found = [
        ToolFailure(name=name, reason=reason, message=message[:4096], time=sandbox.now)
        for name, reason, message in fresh
    ]
    return tuple([*found, *before.failures][:MOST_FAILURES])


def _same(was: ServerStatus, now: ServerStatus) -> bool:
    return was.state is now.state and was.reason is now.reason


def between(before: ToolSandboxStatus, after: ToolSandboxStatus, views: Sequence[server.View]) -> Iterator[EventRecord]:
    """Events: readiness and its reason, servers that fail or recover, and changes of the number of pods.

    Keys name the state that was left, so that a plan that is carried out twice says everything once.
    """
    then, now = (find(status.conditions, ConditionType.READY) for status in (before, after))
    if now and (then is None or (then.status, then.reason) != (now.status, now.reason)):
        left = f"{then.reason}/{_moment(then.last_transition_time)}/{events.digest(then.message)}" if then else "first"
        warning = now.status == "False" and REASONS[now.reason].remedy is not None
        yield events.record(now.reason, now.message, f"ready/{now.reason}/{left}", warning=warning)
    earlier = {(each.name, each.version): each for each in before.servers}
    calls = {(each.status.name, each.status.version): each.calls for each in views}
    for each in after.servers:
        was = earlier.get((each.name, each.version))
        yield from _server_events(was, each, calls.get((each.name, each.version)))


def _server_events(was: ServerStatus | None, now: ServerStatus, calls: int | None) -> Iterator[EventRecord]:
    name = f"{now.name}/{now.version}"
    left = f"{name}/{was.state}/{was.reason}/{_moment(was.since)}" if was else f"{name}/first"
    if now.state is ServerState.FAILING and not (was and _same(was, now)):
        yield events.record(now.reason, f"Server {name}: {now.message}", f"failing/{now.reason}/{left}", warning=True)
    if was and was.state is ServerState.FAILING and now.state is ServerState.READY:
        yield events.record(Reason.AVAILABLE, f"Server {name} serves again.", f"recovered/{left}", warning=False)
    if now.state is ServerState.DRAINING and not (was and was.state is ServerState.DRAINING):
        yield events.record(Reason.DRAINING, f"Server {name}: {now.message}", f"draining/{left}", warning=False)
    if was and was.desired != now.desired and now.last_busy_time:
        why = f" ({calls} calls under way or waiting)" if calls is not None else ""
        text = f"Server {name}: {was.desired} → {now.desired} pods{why}."
        key = f"scaled/{name}/{was.desired}/{now.desired}/{_moment(was.last_busy_time)}"
        yield events.record(Reason.SCALING, text, key, warning=False)


def _moment(time: datetime | None) -> str:
    return time.strftime("%Y%m%dT%H%M%S") if time else "first"


def invalid(before: ToolSandboxStatus, generation: int, now: datetime, fact: str) -> ToolSandboxStatus:
    """A spec that can't work. Everything else in the status stays, as what is served does."""
    message = told(Reason.INVALID_SPEC, fact)
    conditions = Conditions(before.conditions, now=now, generation=generation)
    conditions.set(ConditionType.READY, False, Reason.INVALID_SPEC, message)
    conditions.set(ConditionType.STALLED, True, Reason.INVALID_SPEC, message)
    return before.model_copy(update={"conditions": conditions.all(), "observed_generation": generation})
