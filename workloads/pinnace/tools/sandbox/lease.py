"""One pod, one lease at a time: who has it, how long, and the pod's state. Pure; times are seconds since the epoch."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

Name = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,127}$")]


class State(StrEnum):
    """Of the pod; a pod in `starting`, `resetting` or `spent` takes no lease."""

    STARTING = "starting"
    FREE = "free"
    ARMED = "armed"
    RESETTING = "resetting"
    SPENT = "spent"


class Recycle(StrEnum):
    """What becomes of the pod after a lease."""

    DELETE = "Delete"
    RESTART = "Restart"
    NOOP = "Noop"


class _Model(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True)


class LimitsSpec(_Model):
    """What a lease may use; the executor's `Limits` says what each means."""

    memory_mib: Annotated[int, Field(ge=128, le=1 << 20, alias="memoryMiB")] = 512
    processes: Annotated[int, Field(ge=8, le=4096)] = 64
    cpu_seconds: Annotated[int, Field(ge=1, le=86_400)] = 3600
    file_mib: Annotated[int, Field(ge=1, le=1 << 16, alias="fileMiB")] = 128
    open_files: Annotated[int, Field(ge=256, le=65_536)] = 512
    """At least 256: the shell's own descriptor is number 200."""
    output_kib: Annotated[int, Field(ge=1, le=1024, alias="outputKiB")] = 64
    timeout_seconds: Annotated[float, Field(gt=0, le=3600)] = 60
    longest_seconds: Annotated[float, Field(gt=0, le=3600)] = 600


class Lease(_Model):
    """The body of `POST /lease`."""

    id: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,128}$")]
    token_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", alias="tokenSha256")]
    env: Annotated[dict[Name, Annotated[str, Field(max_length=65_536)]], Field(max_length=256)] = {}
    limits: LimitsSpec = LimitsSpec()
    expires_at: AwareDatetime
    """RFC 3339; a number is seconds since the epoch."""
    idle_seconds: Annotated[float, Field(gt=0)] = 600
    labels: Annotated[dict[str, Annotated[str, Field(max_length=256)]], Field(max_length=32)] = {}


def rfc3339(seconds: float) -> str:
    """Seconds since the epoch as `2026-11-23T10:00:00.123Z`."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Renewal(_Model):
    """The body of `POST /lease/renew`."""

    expires_at: AwareDatetime


_MOST_LOSSES = 3


class NotFree(Exception):
    """The pod has another lease, or can't take one now."""


class NotHeld(Exception):
    """No lease, or not this one."""


class Slot:
    """The pod's place for one lease. All changes are between two awaits, so that of two gateways one wins."""

    def __init__(self) -> None:
        self.state = State.STARTING
        self.lease: Lease | None = None
        self.expires_at = 0.0
        self.last_used = 0.0
        self.in_flight = 0
        """Calls under way: a lease that works is not idle."""
        self.losses = 0
        """How often the executor's container ended. Kubernetes waits longer each time before it starts it again: a pod
        where that happened three times takes no further lease, and is replaced."""
        self.lost: str | None = None
        """Why the processes of the lease are gone; until a reset, its calls are `unavailable`."""

    def reserve(self, lease: Lease, now: float | None = None) -> None:
        """Takes the pod for `lease`; it is armed once `state` says so. Raises `NotFree`."""
        if self.state is not State.FREE:
            raise NotFree(f"the pod is {self.state}" + (f" by lease {self.lease.id}" if self.lease else ""))
        self.state, self.lease, self.lost = State.STARTING, lease, None
        self.expires_at, self.last_used = lease.expires_at.timestamp(), time.time() if now is None else now

    def hold(self, lease_id: str | None) -> Lease:
        """The armed lease, which must be `lease_id` where that is given. Raises `NotHeld`."""
        if self.lease is None or self.state is not State.ARMED or (lease_id is not None and self.lease.id != lease_id):
            raise NotHeld(f"lease {lease_id or ''} is not armed in this pod, which is {self.state}; take a new session")
        return self.lease

    def due(self, now: float) -> str | None:
        """Why the lease is over, if it is."""
        if self.lease is None or self.state is not State.ARMED:
            return None
        if now >= self.expires_at:
            return "it expired"
        if not self.in_flight and now >= self.last_used + self.lease.idle_seconds:
            return f"nobody used it for {self.lease.idle_seconds:g} s"
        return None

    def freed(self, state: State = State.FREE) -> None:
        """No lease any more."""
        worn = state is State.FREE and self.losses >= _MOST_LOSSES
        self.state, self.lease, self.lost = State.SPENT if worn else state, None, None

    def executor_lost(self, why: str) -> None:
        """Every process of the pod ended. A lease stays, so that its owner hears of it before it goes on."""
        if self.state is State.SPENT:
            return
        self.losses += 1
        if self.lease is not None and self.state is State.ARMED:
            self.lost = why
            return
        if self.state is not State.RESETTING:
            self.freed(State.STARTING)

    def describe(self) -> dict[str, Any]:
        """`GET /lease`."""
        described: dict[str, Any] = {"state": self.state}
        if self.lease is not None:
            described |= {
                "id": self.lease.id,
                "tokenSha256": self.lease.token_sha256,
                "expiresAt": rfc3339(self.expires_at),
                "idleSeconds": self.lease.idle_seconds,
                "lastUsed": rfc3339(self.last_used),
                "labels": self.lease.labels,
                "inFlight": self.in_flight,
            }
        if self.lost is not None:
            described["lost"] = self.lost
        return described
