"""What a lease is, on both sides of docs/toolsandbox-contract.md §5. Pure."""

from __future__ import annotations

import datetime
import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

TENANT = "pinnace.dev/tenant"
_HELD = {"armed", "resetting", "starting"}
PodState = Literal["unknown", "starting", "free", "taking", "armed", "resetting", "spent"]


@dataclass(eq=False)
class SessionPod:
    """One pod of the warm pool; `url` is its agent's base URL. `taking`: this gateway is arming it right now."""

    url: str
    name: str = ""
    state: PodState = "unknown"
    lease: Lease | None = None
    asked: float = -1e9
    failures: int = 0


@dataclass(eq=False)
class Lease:
    """A sandbox that belongs to one trajectory.

    Args:
        token_digest: SHA-256 of the lease's own token; the token itself is not kept.
        expires_at, last_used: seconds since the epoch.
        calls: in flight now.
    """

    id: str
    tenant: str
    token_digest: str
    pod: SessionPod
    expires_at: float
    idle_seconds: float
    labels: Mapping[str, str] = field(default_factory=dict)
    last_used: float = 0.0
    calls: int = 0

    def expired(self, now: float) -> bool:
        """By its hard limit, or unused for too long."""
        return now >= self.expires_at or (not self.calls and now - self.last_used >= self.idle_seconds)

    def to_json(self) -> dict[str, Any]:
        """As `GET /sessions/{id}` tells it."""
        return {
            "id": self.id,
            "expiresAt": rfc3339(self.expires_at),
            "lastUsed": rfc3339(self.last_used),
            "idleSeconds": self.idle_seconds,
            "labels": {key: value for key, value in self.labels.items() if key != TENANT},
        }


def new_id(url: str) -> str:
    """For a lease of the pod at `url`. It names the pod, so that every gateway knows whom to ask about it."""
    return f"s-{mark(url)}-{secrets.token_hex(8)}"


def new_token(lease_id: str) -> str:
    """The secret of a lease; begins with its id."""
    return f"{lease_id}.{secrets.token_urlsafe(32)}"


def mark(url: str) -> str:
    """Stands for a pod in the ids of its leases, without saying where it is."""
    return hashlib.sha256(url.encode()).hexdigest()[:12]


def mark_in(id_or_token: str) -> str:
    """The reverse of `new_id` and `new_token`; empty for anything else."""
    kind, _, rest = id_or_token.partition("-")
    return rest.partition("-")[0] if kind == "s" else ""


def rfc3339(seconds: float) -> str:
    """Seconds since the epoch as `2026-11-23T10:00:00.123Z`."""
    moment = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def seconds(text: Any, default: float) -> float:
    """The reverse of `rfc3339`; `default` for anything else."""
    try:
        return datetime.datetime.fromisoformat(str(text)).timestamp()
    except ValueError:
        return default


def from_agent(pod: SessionPod, answer: Mapping[str, Any], now: float) -> Lease | None:
    """The lease that a pod's agent reports, None when it has none. One that is being armed or reset is one, too."""
    if answer.get("state") not in _HELD or not answer.get("id") or not answer.get("tokenSha256"):
        return None
    labels = dict(answer.get("labels") or {})
    return Lease(
        id=str(answer["id"]),
        tenant=str(labels.get(TENANT, "default")),
        token_digest=str(answer["tokenSha256"]),
        pod=pod,
        expires_at=seconds(answer.get("expiresAt"), now),
        idle_seconds=float(answer.get("idleSeconds") or 600),
        labels=labels,
        last_used=seconds(answer.get("lastUsed"), now),
    )
