"""What is served: a catalogue entry or a plain command, its tools, its refusals and its contract test."""

from __future__ import annotations

import asyncio
import contextlib
import difflib
import logging
from dataclasses import dataclass, field

from pinnace.tools.catalogue import Entry, Granted, expected_outcome, refusal
from pinnace.tools.outcome import CallError, Outcome, ToolResult
from pinnace.tools.serve.child import Progress
from pinnace.tools.serve.errors import Deadline, ServeError
from pinnace.tools.serve.pool import Pool
from pinnace.tools.serve.settings import Limits
from pinnace.tools.serve.wire import INVALID_PARAMS, Json, Rejection, for_child

log = logging.getLogger(__name__)
_RETRY_SECONDS = 1.0


@dataclass
class Server:
    """The tools of a pool's children. `entry` is None for a plain command: its one duty is to list tools."""

    name: str
    pool: Pool
    limits: Limits
    entry: Entry | None = None
    granted: Granted = field(default_factory=Granted)
    tools: dict[str, Json] = field(default_factory=dict)
    problem: str = "starting"
    _probes: set[asyncio.Task[None]] = field(default_factory=set)

    async def learn(self) -> None:
        """Keeps `tools` and `problem` right: the contract test until it passes, then again on every change."""
        changed = asyncio.Event()
        self.pool.on_tools_changed = changed.set
        while True:
            changed.clear()
            known = self.problem
            try:
                self.problem = await self._test()
            except (ServeError, Rejection) as error:
                self.problem = self.pool.trouble() or str(error)
            if self.problem and self.problem != known:
                log.warning("%s is not ready: %s", self.name, self.problem)
            # Not ready: try again soon. Ready: only when the children say that their tools have changed.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_RETRY_SECONDS if self.problem else None):
                    await changed.wait()

    async def _test(self) -> str:
        """What breaks the contract; empty if nothing does."""
        async with self.pool.child(seconds=self.limits.call_seconds) as child:
            listed = await child.tools(seconds=self.limits.call_seconds)
        self.tools = {str(tool["name"]): tool for tool in listed}
        if self.entry is None:
            return "" if listed else "the server lists no tools"
        if missing := sorted(set(self.entry.tools) - set(self.tools)):
            return f"tools that the catalogue declares are missing: {', '.join(missing)}"
        canary = self.entry.canary
        expected = expected_outcome(self.entry, canary, self.granted)
        result = await self.call({"name": canary.tool, "arguments": canary.arguments}, seconds=self.limits.call_seconds)
        outcome = ToolResult.from_mcp(result).outcome
        if outcome is not expected:
            said = ToolResult.from_mcp(result).text[:500]
            return f"the canary call of {canary.tool} ended {outcome}, not {expected}: {said}"
        return ""

    def _honest(self, result: Json) -> Json:
        """An error that the server reports as ordinary text is marked as one, for those who retry or reward."""
        if self.entry and not result.get("isError") and self.entry.failed(_first_text(result)):
            return result | {"isError": True}
        return result

    async def call(self, params: Json, *, seconds: float, progress: Progress | None = None) -> Json:
        """The `CallToolResult` of one call. Whatever the server does wrong becomes a result with its outcome.

        Raises:
            Rejection: No such tool, or the server's own JSON-RPC error.
            QueueFull, Draining: The bridge takes no call; the transport says so.
        """
        name = params.get("name")
        if not isinstance(name, str) or (self.tools and name not in self.tools):
            near = difflib.get_close_matches(str(name), self.tools, n=3)
            hint = f"; did you mean {' or '.join(near)}?" if near else ""
            raise Rejection(INVALID_PARAMS, f"unknown tool: {name}{hint}", None, {"suggestions": near})
        if self.entry and (why := refusal(self.entry, name, self.granted)):
            return _failed(Outcome.UNAVAILABLE, why)
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        async with self.pool.child(seconds=seconds) as child:
            token = child.token() if progress else None
            try:
                result = await child.request(
                    "tools/call", for_child(params, token), seconds=end - loop.time(), progress=progress, token=token
                )
                return self._honest(result)
            except Deadline as error:
                probe = asyncio.create_task(self.pool.missed_deadline(child))
                self._probes.add(probe)
                probe.add_done_callback(self._probes.discard)
                return _failed(error.outcome, str(error))
            except ServeError as error:
                return _failed(error.outcome, str(error))


def _first_text(result: Json) -> str:
    for block in result.get("content") or ():
        if isinstance(block, dict) and block.get("type") == "text":
            return str(block.get("text", ""))
    return ""


def _failed(outcome: Outcome, message: str) -> Json:
    return ToolResult(outcome, error=CallError(message)).to_mcp()
