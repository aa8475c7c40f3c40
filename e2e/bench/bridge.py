"""CPU per call and throughput of the bridge against FastMCP's proxy: one stdio server, one client, one machine.

Both put the same echo server behind Streamable HTTP. CPU is that of the bridge or proxy process alone, read from /proc,
so it compares on a machine that does other things as well; calls a second is for orientation.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import statistics
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

REPOSITORY = Path(__file__).parents[2]
ECHO = (sys.executable, "-S", str(REPOSITORY / "tests/tools/faulty.py"))
CALLS = int(os.environ.get("PINNACE_BENCH_CALLS", "1000"))
CLIENTS = (1, 16)
ENVELOPE = {"io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {}}
HEADERS = {
    "MCP-Protocol-Version": "2026-07-28",
    "Mcp-Method": "tools/call",
    "Mcp-Name": "echo",
    "Accept": "application/json, text/event-stream",
}
_PROXY = """
import sys
from fastmcp.client.transports import StdioTransport
from fastmcp.server import create_proxy
transport = StdioTransport(sys.argv[2], sys.argv[3:])
proxy = create_proxy(transport, mode="auto")  # the server speaks 2025-06-18
settings = {"json_response": True, "show_banner": False, "uvicorn_config": {"access_log": False, "log_level": "error"}}
proxy.run("streamable-http", host="127.0.0.1", port=int(sys.argv[1]), **settings)
"""


def _port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@asynccontextmanager
async def _process(*command: str) -> AsyncIterator[int]:
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        yield process.pid
    finally:
        process.terminate()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(5):
                await process.wait()
        if process.returncode is None:
            process.kill()
            await process.wait()


async def _call(http: aiohttp.ClientSession, url: str, number: int) -> None:
    params: dict[str, Any] = {"name": "echo", "arguments": {"text": f"call {number}"}, "_meta": ENVELOPE}
    body = {"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params}
    async with http.post(url, json=body, headers=HEADERS) as answer:
        text = await answer.text()
        if answer.status != 200 or f"call {number}" not in text:
            raise RuntimeError(f"{url} answered {answer.status}: {text[:300]}")


async def _ready(http: aiohttp.ClientSession, url: str) -> None:
    async with asyncio.timeout(60):
        while True:
            with contextlib.suppress(aiohttp.ClientError, RuntimeError):
                await _call(http, url, 0)
                return
            await asyncio.sleep(0.1)


async def _measure(
    http: aiohttp.ClientSession, url: str, pid: int, clients: int, calls: int
) -> tuple[float, float, float]:
    """Milliseconds of CPU a call, calls a second, median latency in milliseconds."""
    numbers = iter(range(1, calls + 1))
    latencies: list[float] = []

    async def client() -> None:
        for number in numbers:
            started = time.perf_counter()
            await _call(http, url, number)
            latencies.append(1000 * (time.perf_counter() - started))

    before, started = _cpu(pid), time.perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)))
    seconds = time.perf_counter() - started
    return 1000 * (_cpu(pid) - before) / calls, calls / seconds, statistics.median(latencies)


async def main() -> None:
    """Prints one line for each of both and the ratio of their CPU."""
    proxy = str(REPOSITORY / ".venv-catalogue/mcp2/bin/python")
    ours, theirs = _port(), _port()
    serve = "from pinnace.tools.serve.cli import app; app()"
    bridge = (
        sys.executable,
        "-c",
        serve,
        "--host",
        "127.0.0.1",
        "--port",
        str(ours),
        "--drain-delay",
        "0",
        "--",
        *ECHO,
    )
    async with (
        aiohttp.ClientSession() as http,
        _process(*bridge) as one,
        _process(proxy, "-c", _PROXY, str(theirs), *ECHO) as two,
    ):
        for url in (f"http://127.0.0.1:{ours}/mcp", f"http://127.0.0.1:{theirs}/mcp"):
            await _ready(http, url)
        for clients in CLIENTS:
            mine = await _measure(http, f"http://127.0.0.1:{ours}/mcp", one, clients, CALLS)
            peer = await _measure(http, f"http://127.0.0.1:{theirs}/mcp", two, clients, max(50, CALLS // 10))
            for name, (cpu, rate, latency) in (("bridge", mine), ("FastMCP proxy", peer)):
                figures = f"{cpu:7.2f} ms CPU/call {rate:8.0f} calls/s {latency:7.1f} ms median"
                print(f"{clients:>3} clients  {name:<14} {figures}")
            print(f"{clients:>3} clients  FastMCP's proxy needs {peer[0] / mine[0]:.1f} times the CPU of the bridge")


if __name__ == "__main__":
    asyncio.run(main())
