"""MCP sessions of revisions before 2026-07-28: ids that any gateway of the ToolSandbox can check, bounded state."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import json
import secrets
import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

MAX_SESSIONS = 10_000
IDLE_SECONDS = 1800.0
_LONGEST = 86_400.0  # seconds; an older id is not taken over
_NONCE = 12
_FACTS = 5
_MOST_TOLD = 2048  # characters of what the client told at the start that its session's id may hold: it is a header


class Running:
    """A call of the task that made this."""

    def __init__(self) -> None:
        self._task = asyncio.current_task()
        self.taken_back = False

    def take_back(self) -> None:
        """The client does not want it any more."""
        self.taken_back = True
        if self._task is not None:
            self._task.cancel()

    def is_all_that_was_cancelled(self) -> bool:
        """Whether only the call was, not its task for another reason. Clears it from the task."""
        return self.taken_back and self._task is not None and self._task.uncancel() == 0


@dataclass(eq=False)
class McpSession:
    """One client.

    Args:
        id: `Mcp-Session-Id`.
        tenant: whose it is.
        version: the revision that was negotiated.
        capabilities, info: as the client gave them.
        in_flight: by JSON-RPC id, the calls that a `notifications/cancelled` takes back.
        waiting: by JSON-RPC id, the answers that the client owes us.
    """

    id: str
    tenant: str
    version: str
    capabilities: dict[str, Any] = field(default_factory=dict)
    info: dict[str, Any] = field(default_factory=dict)
    log_level: str = "info"
    used: float = field(default_factory=time.monotonic)
    streams: int = 0
    in_flight: dict[Any, Running] = field(default_factory=dict)
    waiting: dict[Any, asyncio.Future[dict[str, Any]]] = field(default_factory=dict)

    @property
    def busy(self) -> bool:
        return bool(self.in_flight or self.streams)

    @contextmanager
    def running(self, rpc_id: Any) -> Iterator[Running]:
        """Ends early, with `taken_back`, when the client takes the call back."""
        running = self.in_flight[rpc_id] = Running()
        try:
            yield running
        except asyncio.CancelledError:
            if not running.is_all_that_was_cancelled():
                raise
        finally:
            self.in_flight.pop(rpc_id, None)


class McpSessions:
    """At most 10,000; one that was not used for 30 minutes ends, and the longest unused ones when there are more.

    An id is signed with `key`, and holds what the client told at the start: another gateway that has the same key takes
    the session over, so that it survives its gateway, and each request of it may come to any.
    """

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._sessions: OrderedDict[str, McpSession] = OrderedDict()
        self._ended: OrderedDict[str, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._sessions)

    def begin(self, version: str, tenant: str, capabilities: dict[str, Any], info: dict[str, Any]) -> McpSession:
        """A new session."""
        told = [capabilities, info]
        if len(json.dumps(told)) > _MOST_TOLD:
            told = [{}, {}]
        facts = json.dumps([version, int(time.time()), secrets.token_hex(_NONCE), *told]).encode()
        session = McpSession(f"{_text(facts)}.{self._sign(facts, tenant)}", tenant, version, capabilities, info)
        self._keep(session)
        return session

    def find(self, session_id: str, tenant: str) -> McpSession | None:
        """The session, if it is this tenant's and has not ended."""
        session = self._sessions.get(session_id)
        if session is None or session.tenant != tenant:
            session = self._taken_over(session_id, tenant)
        if session is None:
            return None
        session.used = time.monotonic()
        self._keep(session)
        return session

    def _taken_over(self, session_id: str, tenant: str) -> McpSession | None:
        """From another gateway, or from this one before it forgot it."""
        facts = self._facts(session_id, tenant)
        if facts is None or session_id in self._ended:
            return None
        version, issued, _, capabilities, info = facts
        if time.time() - issued > _LONGEST:
            return None
        return McpSession(session_id, tenant, version, capabilities, info)

    def end(self, session: McpSession) -> None:
        """The client is done; its calls in flight are cancelled."""
        for running in session.in_flight.values():
            running.take_back()
        self._forget(session)

    def reap(self) -> None:
        """End what is idle."""
        now = time.monotonic()
        for session in list(self._sessions.values()):
            if now - session.used < IDLE_SECONDS:
                break
            if session.busy:
                session.used = now
                self._sessions.move_to_end(session.id)
            else:
                self._forget(session)
        while self._ended and now - next(iter(self._ended.values())) > _LONGEST:
            self._ended.popitem(last=False)

    def _keep(self, session: McpSession) -> None:
        self._sessions[session.id] = session
        self._sessions.move_to_end(session.id)
        if len(self._sessions) > MAX_SESSIONS:
            idle = next((each for each in self._sessions.values() if not each.busy), session)
            self._forget(idle)

    def _forget(self, session: McpSession) -> None:
        self._sessions.pop(session.id, None)
        self._ended[session.id] = time.monotonic()
        if len(self._ended) > 10 * MAX_SESSIONS:
            self._ended.popitem(last=False)

    def _sign(self, facts: bytes, tenant: str) -> str:
        return _text(hmac.digest(self._key, tenant.encode() + b"\0" + facts, hashlib.sha256)[:18])

    def _facts(self, session_id: str, tenant: str) -> list[Any] | None:
        payload, _, signature = session_id.partition(".")
        try:
            facts = base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4))
        except (binascii.Error, ValueError):
            return None
        if not hmac.compare_digest(self._sign(facts, tenant), signature):
            return None
        found = json.loads(facts)  # we signed it, so we made it
        return found if isinstance(found, list) and len(found) == _FACTS else None


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")
