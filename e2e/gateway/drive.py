"""A cheap client: raw requests of either era over kept-alive connections, with their latencies."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import aiohttp

Era = Literal["modern", "legacy"]
_TICK = os.sysconf("SC_CLK_TCK")
_META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientInfo": {"name": "bench", "version": "1"},
    "io.modelcontextprotocol/clientCapabilities": {},
}


@dataclass
class Target:
    """A `/mcp` and the process whose CPU time counts (with its children); 0: none."""

    name: str
    url: str
    era: Era
    pid: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    tool: str = "echo"

    def cpu(self) -> float:
        """Seconds of CPU so far."""
        return sum(_cpu(pid) for pid in _family(self.pid)) if self.pid else 0.0

    def rss(self) -> float:
        """MiB resident."""
        return sum(_rss(pid) for pid in _family(self.pid)) if self.pid else 0.0


def _family(pid: int) -> list[int]:
    found = [pid]
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in children.read_text().split():
            found += _family(int(child))
    return found


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICK


def _rss(pid: int) -> float:
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


class Driver:
    """Connections to one target; in the legacy era one MCP session."""

    def __init__(self, target: Target, http: aiohttp.ClientSession) -> None:
        self.target = target
        self._http = http
        self.headers = {
            "Accept": "application/json, text/event-stream", "Content-Type": "application/json", **target.headers,
        }  # fmt: skip
        if target.era == "modern":
            self.headers |= {
                "MCP-Protocol-Version": "2026-07-28", "Mcp-Method": "tools/call", "Mcp-Name": target.tool,
            }  # fmt: skip
        params: dict[str, Any] = {"name": target.tool, "arguments": {"text": "hello"}}
        if target.era == "modern":
            params["_meta"] = _META
        self._params = json.dumps(params)
        self._ids = itertools.count(1)

    async def open(self) -> None:
        """The handshake of the legacy era."""
        if self.target.era == "modern":
            return
        client = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "b", "version": "1"}}
        hello = {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": client}
        async with self._http.post(self.target.url, json=hello, headers=self.headers) as response:
            await response.read()
            if session := response.headers.get("Mcp-Session-Id"):
                self.headers["Mcp-Session-Id"] = session
        self.headers["MCP-Protocol-Version"] = "2025-06-18"
        note = {"jsonrpc": "2.0", "method": "notifications/initialized"}
        async with self._http.post(self.target.url, json=note, headers=self.headers) as response:
            await response.read()

    async def call(self) -> float:
        """Seconds of one call. Raises `RuntimeError` if it did not give the text back."""
        # An id of its own for each: in a session they must differ.
        body = f'{{"jsonrpc":"2.0","id":{next(self._ids)},"method":"tools/call","params":{self._params}}}'.encode()
        began = time.perf_counter()
        async with self._http.post(self.target.url, data=body, headers=self.headers) as response:
            answer = await response.read()
        if b'"text":"hello"' not in answer.replace(b": ", b":"):
            raise RuntimeError(f"{self.target.name}: HTTP {response.status}: {answer[:300]!r}")
        return time.perf_counter() - began


@dataclass
class Measured:
    """Latencies in seconds, wall time, and CPU seconds of the target's process."""

    latencies: list[float]
    wall: float
    cpu: float
    failures: int = 0

    @property
    def per_second(self) -> float:
        return len(self.latencies) / self.wall

    @property
    def cpu_ms(self) -> float:
        return self.cpu * 1000 / max(1, len(self.latencies))

    def quantile(self, share: float) -> float:
        """Milliseconds."""
        ordered = sorted(self.latencies)
        return ordered[min(len(ordered) - 1, int(len(ordered) * share))] * 1000 if ordered else float("nan")


async def closed(driver: Driver, *, clients: int, seconds: float, most: int = 1_000_000) -> Measured:
    """Each client calls again as soon as it has its answer."""
    latencies: list[float] = []
    failures = 0
    end = time.perf_counter() + seconds

    async def client() -> None:
        nonlocal failures
        while time.perf_counter() < end and len(latencies) < most:
            try:
                latencies.append(await driver.call())
            except (RuntimeError, aiohttp.ClientError, OSError):
                failures += 1

    return await _timed(driver, latencies, [client() for _ in range(clients)], lambda: failures, seconds)


async def counted(driver: Driver, *, calls: int, clients: int, seconds: float) -> Measured:
    """A number of calls, all of them finished: CPU time a call is measured by it. New ones begin for `seconds` only."""
    latencies: list[float] = []
    begun = itertools.count()
    end = time.perf_counter() + seconds
    failures = 0

    async def client() -> None:
        nonlocal failures
        while next(begun) < calls and time.perf_counter() < end:
            try:
                latencies.append(await driver.call())
            except (RuntimeError, aiohttp.ClientError, OSError):
                failures += 1

    return await _timed(driver, latencies, [client() for _ in range(clients)], lambda: failures, seconds + 60)


async def paced(driver: Driver, *, rate: float, seconds: float) -> Measured:
    """Calls begin at a fixed rate, whatever happens to those before; a late start counts as latency."""
    latencies: list[float] = []
    failures = 0
    began = time.perf_counter()

    async def one(due: float) -> None:
        nonlocal failures
        try:
            await driver.call()
            latencies.append(time.perf_counter() - due)
        except (RuntimeError, aiohttp.ClientError, OSError):
            failures += 1

    async def run() -> None:
        tasks = []
        for number in range(int(rate * seconds)):
            due = began + number / rate
            if (wait := due - time.perf_counter()) > 0:
                await asyncio.sleep(wait)
            tasks.append(asyncio.create_task(one(due)))
        await asyncio.gather(*tasks)

    return await _timed(driver, latencies, [run()], lambda: failures, seconds + 30)


async def _timed(
    driver: Driver, latencies: list[float], work: list[Any], failures: Callable[[], int], seconds: float
) -> Measured:
    """Calls that are still on their way when the time is up do not count: a slow target would need minutes for them."""
    cpu, began = driver.target.cpu(), time.perf_counter()
    _, late = await asyncio.wait([asyncio.ensure_future(each) for each in work], timeout=seconds + 0.1)
    for task in late:
        task.cancel()
    await asyncio.gather(*late, return_exceptions=True)
    return Measured(latencies, time.perf_counter() - began, driver.target.cpu() - cpu, failures())
