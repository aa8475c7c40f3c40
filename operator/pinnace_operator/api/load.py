"""What gateways post to the operator, every second and when a call or a lease waits for a pod."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from pinnace_operator.api.base import ApiModel
from pinnace_operator.api.fields import whole
from pinnace_operator.api.status import Count
from pinnace_operator.api.toolsandbox_status import MOST_UNHEALTHY, ShortName, ToolHealth


class ServerLoad(ApiModel):
    """One version of one server, as one gateway sees it."""

    name: ShortName
    """The server."""
    version: ShortName
    """Its version."""
    ready: Count = 0
    """Replicas that this gateway would pick."""
    in_flight: Count = 0
    """Calls that have left for it and are not answered."""
    queued: Count = 0
    """Calls that wait for it, discovery of its tools included."""
    tools: Count | None = None
    """Tools that it has listed."""
    state: Literal["ready", "starting", "failing", "absent"] = "absent"
    """What the gateway makes of it."""
    message: Annotated[str, Field(max_length=512)] = ""
    """Why it fails."""

    @property
    def calls(self) -> int:
        return self.in_flight + self.queued


class SessionLoad(ApiModel):
    """The sandboxes, as one gateway sees them."""

    free: Count = 0
    """Ready for a lease."""
    armed: Count = 0
    """Leased, by any gateway."""
    max: Count = 0
    """The most that its configuration allows."""
    wanted: Count = 0
    """Sandboxes that requests for leases wait for."""
    spent: Annotated[tuple[Annotated[str, Field(max_length=253)], ...], Field(max_length=256)] = ()
    """Names of pods whose lease is over and that must be replaced."""


class LoadReport(ApiModel):
    """The body of `POST /v1/load`. Each gateway's latest one counts."""

    kind: Literal["ToolSandbox"] = "ToolSandbox"
    """Always ToolSandbox."""
    namespace: Annotated[str, Field(min_length=1, max_length=63)]
    """The ToolSandbox's namespace."""
    name: Annotated[str, Field(min_length=1, max_length=63)]
    """Its name."""
    uid: Annotated[str, Field(min_length=1, max_length=64)]
    """Its metadata.uid."""
    pod: Annotated[str, Field(min_length=1, max_length=253)]
    """The gateway's pod."""
    generation: Annotated[int, whole(0, 2**53)] = 0
    """Generation of the configuration that is in force in this gateway."""
    servers: Annotated[tuple[ServerLoad, ...], Field(max_length=1024)] = ()
    """Every version in its configuration, and removed ones that still have calls."""
    tools: Count = 0
    """Tools that it serves."""
    unhealthy_tools: Annotated[tuple[ToolHealth, ...], Field(max_length=MOST_UNHEALTHY)] = ()
    """Tools whose last calls failed."""
    sessions: SessionLoad | None = None
    """Absent without sessions."""
