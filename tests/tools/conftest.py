"""Bridges over real processes, and a caller that speaks MCP 2026-07-28 over HTTP by hand."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from pinnace.tools.outcome import Outcome, ToolResult
from pinnace.tools.serve.run import Bridge
from pinnace.tools.serve.settings import Launch, Limits

FAULTY = (sys.executable, "-S", str(Path(__file__).with_name("faulty.py")))
QUICK = Limits(
    call_seconds=20,
    ping_seconds=0.3,
    backoff_first=0.02,
    backoff_cap=0.1,
    drain_delay=0.05,
    drain_seconds=10,
    check_seconds=0.05,
)
ENVELOPE = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
    "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
}


async def eventually(condition: Callable[[], Awaitable[Any] | Any], *, seconds: float = 20) -> Any:
    """The first true value of the condition."""
    async with asyncio.timeout(seconds):
        while True:
            value = condition()
            if isinstance(value, Awaitable):
                value = await value
            if value:
                return value
            await asyncio.sleep(0.01)


@dataclass
class Caller:
    """One HTTP client of one bridge."""

    url: str
    http: aiohttp.ClientSession
    numbers: list[int] = field(default_factory=lambda: [0])

    def message(
        self, method: str, params: dict[str, Any] | None = None, *, meta: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """A well-formed request."""
        self.numbers[0] += 1
        params = {**(params or {}), "_meta": ENVELOPE | (meta or {})}
        return {"jsonrpc": "2.0", "id": self.numbers[0], "method": method, "params": params}

    def headers(self, message: dict[str, Any]) -> dict[str, str]:
        """The headers that go with it."""
        found = {
            "MCP-Protocol-Version": "2026-07-28",
            "Mcp-Method": message["method"],
            "Accept": "application/json, text/event-stream",
        }
        name = message["params"].get("name")
        return found | ({"Mcp-Name": name} if name else {})

    async def ask(
        self, method: str, params: dict[str, Any] | None = None, **headers: str
    ) -> tuple[int, dict[str, Any]]:
        """HTTP status and JSON of any request."""
        message = self.message(method, params)
        async with self.http.post(f"{self.url}/mcp", json=message, headers=self.headers(message) | headers) as answer:
            return answer.status, await answer.json()

    async def call(self, tool: str, /, seconds: float | None = None, **arguments: Any) -> ToolResult:
        """The typed result of a tool call."""
        headers = {"X-Pinnace-Deadline-Ms": str(int(seconds * 1000))} if seconds else {}
        status, answer = await self.ask("tools/call", {"name": tool, "arguments": arguments}, **headers)
        assert status == 200, answer
        return ToolResult.from_mcp(answer["result"])

    async def ready(self) -> tuple[bool, dict[str, Any]]:
        """What /readyz says."""
        async with self.http.get(f"{self.url}/readyz") as answer:
            return answer.status == 200, await answer.json()

    async def becomes_ready(self, seconds: float = 30) -> None:
        """Waits for it."""

        async def is_ready() -> bool:
            return (await self.ready())[0]

        await eventually(is_ready, seconds=seconds)

    async def metric(self, line: str) -> float:
        """The value of one sample of /metrics; 0 if it is not there."""
        async with self.http.get(f"{self.url}/metrics") as answer:
            text = await answer.text()
        values = [float(each.rsplit(" ", 1)[1]) for each in text.splitlines() if each.rsplit(" ", 1)[0] == line]
        return values[0] if values else 0.0


@dataclass
class Faulty:
    """A bridge over `faulty.py` and a caller for it."""

    bridge: Bridge
    caller: Caller

    @property
    def call(self) -> Callable[..., Awaitable[ToolResult]]:
        return self.caller.call

    async def ok(self, text: str = "still there") -> bool:
        """Whether a call works."""
        result = await self.caller.call("echo", text=text)
        return result.outcome is Outcome.OK and result.text == text


Start = Callable[..., Awaitable[Faulty]]


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.fixture
async def faulty(tmp_path: Path, http: aiohttp.ClientSession) -> AsyncIterator[Start]:
    """Starts bridges over `faulty.py` and waits until they are ready: `await faulty("--flag", processes=2)`."""
    async with AsyncExitStack() as stack:

        async def start(*arguments: str, wait: bool = True, env: dict[str, str] | None = None, **limits: Any) -> Faulty:
            given = {"PATH": os.environ["PATH"]} | (env or {})
            launch = Launch("faulty", (*FAULTY, *arguments), given, tmp_path, start_seconds=20)
            bridge = await stack.enter_async_context(Bridge(launch, replace(QUICK, **limits), host="127.0.0.1", port=0))
            found = Faulty(bridge, Caller(bridge.url, http))
            if wait:
                await found.caller.becomes_ready()
            return found

        yield start
