"""What the operator reports about a ToolSandbox."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from pinnace_operator.api.base import ApiModel, ListType
from pinnace_operator.api.conditions import Condition, Reason
from pinnace_operator.api.fields import Time, whole
from pinnace_operator.api.status import Count, Message

MOST_FAILURES = 10
MOST_UNHEALTHY = 64
ShortName = Annotated[str, Field(max_length=63)]
ToolName = Annotated[str, Field(min_length=1, max_length=160)]


class ServerState(StrEnum):
    """What a version of a server does now."""

    READY = "Ready"
    STARTING = "Starting"
    SCALING = "Scaling"
    AT_ZERO = "AtZero"
    DRAINING = "Draining"
    FAILING = "Failing"


class ServerStatus(ApiModel):
    """One version of one server."""

    name: ShortName
    """The server."""
    version: ShortName
    """Its version."""
    state: ServerState = ServerState.STARTING
    """What it does now. Failing: it serves nothing, and the others go on."""
    reason: Reason = Reason.STARTING
    """Why, in one word of a closed list."""
    message: Message = ""
    """Why, for people, with the remedy where one is needed."""
    ready: Count = 0
    """Pods that serve."""
    desired: Count = 0
    """Pods that there should be now."""
    tools: Count | None = None
    """Tools that it serves, once the gateway has listed them."""
    since: Time | None = None
    """When `state` last changed."""
    last_busy_time: Time | None = None
    """When its number of pods was last changed or needed, give or take a few seconds: fewer come a cool-down later."""


class GatewayStatus(ApiModel):
    """The gateway's pods."""

    ready: Count = 0
    """Pods that serve."""
    desired: Count = 0
    """Pods that there should be now."""
    reason: Reason = Reason.STARTING
    """In one word of a closed list."""
    message: Message = ""
    """For people, with the remedy where one is needed."""
    last_busy_time: Time | None = None
    """When their number was last changed or needed."""


class SessionsStatus(ApiModel):
    """The pool of sandboxes."""

    free: Count = 0
    """Ready for a lease."""
    armed: Count = 0
    """Leased."""
    warm: Count = 0
    """Free ones that there should be."""
    desired: Count = 0
    """Pods that there should be now, leased and free."""
    in_use: Annotated[str, Field(max_length=16)] = ""
    """Leased, and the most that there may be, such as `3/64`."""
    reason: Reason = Reason.STARTING
    """In one word of a closed list."""
    message: Message = ""
    """For people, with the remedy where one is needed."""
    last_busy_time: Time | None = None
    """When the pool's size was last changed or needed."""


class ToolHealth(ApiModel):
    """A tool whose last calls failed."""

    name: ToolName
    """Its name as agents see it."""
    outcome: Annotated[str, Field(max_length=32)]
    """How calls end: tool_error, timeout, overloaded, unavailable, invalid_arguments or denied."""
    message: Annotated[str, Field(max_length=512)] = ""
    """What the gateway says."""


class ToolFailure(ApiModel):
    """A failure that was seen."""

    name: ToolName
    """The server and its version, such as `time/v1`; `gateway` or `sessions`."""
    reason: Reason
    """In one word of a closed list."""
    message: Message = ""
    """What happened and what to do."""
    time: Time
    """When it was first seen."""


class ToolSandboxStatus(ApiModel):
    """What the operator knows about the ToolSandbox. Users can't write it."""

    observed_generation: Annotated[int, whole(0, 2**53)] = 0
    """The metadata.generation that this status was computed from."""
    conditions: Annotated[tuple[Condition, ...], Field(max_length=16), ListType("map", ("type",))] = ()
    """The truth, one entry a type: Ready, Suspended, Stalled."""
    endpoint: Annotated[str, Field(max_length=256)] | None = None
    """The address for agents inside the cluster; MCP is at `/mcp`, REST at `/call` and `/tools`."""
    tools: Count = 0
    """Tools that agents can call now, as last counted by the gateway."""
    servers_ready: Annotated[str, Field(max_length=16)] = ""
    """Servers that serve or would at the next call, and all of them, such as `15/16`."""
    gateway: GatewayStatus | None = None
    """The gateway's pods."""
    servers: Annotated[tuple[ServerStatus, ...], Field(max_length=1024), ListType("map", ("name", "version"))] = ()
    """Every version of every server, also those that are being drained."""
    sessions: SessionsStatus | None = None
    """The pool of sandboxes."""
    unhealthy_tools: Annotated[
        tuple[ToolHealth, ...], Field(max_length=MOST_UNHEALTHY), ListType("map", ("name",))
    ] = ()
    """Tools whose last calls failed."""
    failures: Annotated[tuple[ToolFailure, ...], Field(max_length=MOST_FAILURES), ListType()] = ()
    """The last failures, newest first, also those that are over."""
