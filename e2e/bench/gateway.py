"""The gateway beside its peers: `python e2e/bench/gateway.py [--quick] [--calls 100000]`.

One echo backend (official SDK, lowlevel), one client, one run; all on loopback. Peers come from PyPI, each in an
environment of its own below the cache. CPU time is the gateway process's, from /proc: it depends less on how busy the
machine is than latency and throughput do. Rounds interleave the targets, so that a noisy neighbour hits all of them.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import secrets
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import uvloop

from e2e.apiserver import CACHE, free_port
from e2e.gateway import sandboxes
from e2e.gateway.drive import Driver, Era, Measured, Target, closed, counted, paced
from e2e.gateway.lab import Lab, eventually
from e2e.locks import uv

PEERS = Path(__file__).parents[1] / "gateway/peers.py"
FASTMCP, CONTEXTFORGE = "fastmcp==4.2.3", "mcp-contextforge-gateway==1.0.7.post20260921"
CLIENTS = (1, 16, 64, 256)
TOO_SLOW = 50  # calls a second with 16 clients: more clients only make a queue


def environment(requirement: str) -> Path:
    """The Python of an environment with just this package."""
    folder = CACHE / "bench" / requirement.replace("==", "-")
    python = folder / "bin/python"
    if not (folder / ".installed").exists():
        print(f"== installing {requirement}", flush=True)
        program = [uv(), "--system-certs"]
        subprocess.run([*program, "venv", "-q", "--clear", "--python", sys.executable, str(folder)], check=True)
        subprocess.run([*program, "pip", "install", "-q", "--python", str(python), requirement], check=True)
        (folder / ".installed").touch()
    return python


@contextmanager
def process(log: Path, *command: str | Path, **env: str) -> Iterator[int]:
    """A child process, by its id."""
    with log.open("ab") as to:
        child = subprocess.Popen(command, stdout=to, stderr=to, stdin=subprocess.DEVNULL, env={**os.environ, **env})
    try:
        yield child.pid
    finally:
        child.terminate()
        try:
            child.wait(timeout=20)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def peer(folder: Path, kind: str, backend: str = "", python: Path | None = None) -> Iterator[tuple[str, int]]:
    """URL and process id of one of `peers.py`."""
    port = free_port()
    command = (python or Path(sys.executable), PEERS, kind, str(port), backend)
    with process(folder / f"{kind}.log", *command) as pid:
        eventually(f"{kind} listens", lambda: listens(port), within=60)
        yield f"http://127.0.0.1:{port}/mcp", pid


@contextmanager
def contextforge(folder: Path, backend: str) -> Iterator[tuple[str, int, dict[str, str]]]:
    """URL, process id and headers. One process on SQLite with a cache in memory, nothing else switched on."""
    import json

    python = environment(CONTEXTFORGE)
    port = free_port()
    secret = secrets.token_urlsafe(48)
    env = {
        "JWT_SECRET_KEY": secret, "AUTH_ENCRYPTION_SECRET": secret[::-1],
        "BASIC_AUTH_PASSWORD": secrets.token_urlsafe(32),
        "PLATFORM_ADMIN_PASSWORD": "Aa1!" + secrets.token_urlsafe(32), "DATABASE_URL": f"sqlite:///{folder}/forge.db",
        "CACHE_TYPE": "memory", "LOG_LEVEL": "ERROR", "PLUGINS_ENABLED": "false", "SSRF_ALLOW_LOCALHOST": "true",
        "SSRF_ALLOW_PRIVATE_NETWORKS": "true", "RATE_LIMITING_ENABLED": "false",
    }  # fmt: skip
    token_code = (
        "from mcpgateway.utils.create_jwt_token import _create_jwt_token as t\n"
        "m = 'admin@example.com'\n"
        "u = {'email': m, 'full_name': 'a', 'is_admin': True, 'auth_provider': 'local'}\n"
        "print(t({'username': m, 'sub': m}, expires_in_minutes=600, teams=None, user_data=u))"
    )
    made = subprocess.run(
        [python, "-c", token_code], env={**os.environ, **env}, capture_output=True, text=True, check=True
    )
    headers = {"Authorization": f"Bearer {made.stdout.split()[-1]}"}
    program = python.parent / "mcpgateway"
    with process(folder / "forge.log", program, "--host", "127.0.0.1", "--port", str(port), **env) as pid:
        eventually("ContextForge listens", lambda: listens(port), within=120)
        body = json.dumps({"name": "echo", "url": backend, "transport": "STREAMABLEHTTP"}).encode()
        sent = {**headers, "Content-Type": "application/json"}
        request = urllib.request.Request(f"http://127.0.0.1:{port}/gateways", body, sent)
        urllib.request.urlopen(request, timeout=60).close()
        yield f"http://127.0.0.1:{port}/mcp", pid, headers


@dataclass
class Row:
    """What was measured of one target."""

    target: Target
    cpu_ms: list[float] = field(default_factory=list)
    paced: dict[float, list[Measured]] = field(default_factory=dict)
    closed: dict[int, list[Measured]] = field(default_factory=dict)

    @property
    def cpu(self) -> float:
        return statistics.median(self.cpu_ms) if self.cpu_ms else 0.0

    def latency(self, rate: float, share: float) -> float:
        """Milliseconds; the median over rounds."""
        found = [each.quantile(share) for each in self.paced.get(rate, []) if not each.failures]
        return statistics.median(found) if found else float("nan")

    def throughput(self, clients: int) -> float:
        found = [each.per_second for each in self.closed.get(clients, [])]
        return statistics.median(found) if found else float("nan")

    @property
    def capacity(self) -> float:
        return max((self.throughput(clients) for clients in self.closed), default=0.0)


async def measure(rows: list[Row], *, seconds: float, rounds: int, rates: tuple[float, ...]) -> None:
    """Throughput first (it tells which rates a target can stand), then latencies at fixed rates."""
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=60)) as http:
        drivers = {}
        for row in rows:
            drivers[row.target.name] = Driver(row.target, http)
            await drivers[row.target.name].open()
            await closed(drivers[row.target.name], clients=8, seconds=1)  # warm
        for number in range(rounds):
            for clients in CLIENTS:
                await _closed(rows, drivers, clients, seconds)
            for rate in rates:
                await _paced(rows, drivers, rate, seconds)
            print(f"== round {number + 1} of {rounds}", flush=True)


async def _closed(rows: list[Row], drivers: dict[str, Driver], clients: int, seconds: float) -> None:
    for row in rows:
        if clients > 16 and row.throughput(16) < TOO_SLOW:
            continue
        await settled(rows)
        got = await closed(drivers[row.target.name], clients=clients, seconds=seconds)
        row.closed.setdefault(clients, []).append(got)
        if got.failures:
            print(f"   {row.target.name}: {got.failures} failures with {clients} clients", flush=True)
        if clients == 1 and row.target.pid:
            await settled(rows)
            fixed = await counted(drivers[row.target.name], calls=2000, clients=4, seconds=seconds * 2)
            row.cpu_ms.append(fixed.cpu_ms)


async def _paced(rows: list[Row], drivers: dict[str, Driver], rate: float, seconds: float) -> None:
    for row in rows:
        if row.capacity > rate * 1.3:
            await settled(rows)
            row.paced.setdefault(rate, []).append(await paced(drivers[row.target.name], rate=rate, seconds=seconds))


async def settled(rows: list[Row]) -> None:
    """Until no target works on what was cancelled before: it would take the CPU from the next one."""
    for _ in range(120):
        before = sum(row.target.cpu() for row in rows)
        await asyncio.sleep(0.25)
        if sum(row.target.cpu() for row in rows) - before < 0.05:
            return
    raise RuntimeError("a target does not come to rest within 30 s")


async def sessions(target: Target, count: int) -> tuple[int, float]:
    """Calls that succeeded over `count` MCP sessions at a time, and KiB of memory for each session."""
    connector = aiohttp.TCPConnector(limit=128)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=120)) as http:
        before = target.rss()
        drivers = [Driver(target, http) for _ in range(count)]
        await asyncio.gather(*(driver.open() for driver in drivers))
        results = await asyncio.gather(*(driver.call() for driver in drivers), return_exceptions=True)
        again = await asyncio.gather(*(driver.call() for driver in drivers), return_exceptions=True)
    good = sum(isinstance(each, float) for each in (*results, *again))
    return good, (target.rss() - before) * 1024 / count


async def growth(target: Target, calls: int) -> tuple[float, float, float]:
    """MiB after a first tenth of the calls, and after all of them; and the calls a second."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
        driver = Driver(target, http)
        await driver.open()
        await closed(driver, clients=16, seconds=600, most=calls // 10)
        first = target.rss()
        got = await closed(driver, clients=16, seconds=600, most=calls)
        return first, target.rss(), got.per_second


async def group(url: str, token: str, count: int) -> tuple[float, float]:
    """Seconds until `count` leases are there, and until the first command of each has answered."""
    body = {"name": "python", "arguments": {"code": "6 * 7"}}
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=16)) as http:

        async def first(lease: str) -> str:
            sent = {"Authorization": f"Bearer {lease}"}
            async with http.post(f"{url}/call", json=body, headers=sent) as answer:
                return str((await answer.json())["outcome"])

        sent = {"Authorization": f"Bearer {token}"}
        began = time.perf_counter()
        async with http.post(f"{url}/sessions", json={"count": count}, headers=sent) as answer:
            leased = (await answer.json())["sessions"]
        given = time.perf_counter() - began
        outcomes = Counter(await asyncio.gather(*(first(each["token"]) for each in leased)))
        answered = time.perf_counter() - began
        assert outcomes == {"ok": count}, outcomes
        for each in leased:
            async with http.delete(f"{url}/sessions/{each['id']}", headers=sent) as gone:
                await gone.read()
    return given, answered


def leases(lab: Lab, count: int) -> None:
    """A group's sandboxes from a warm pool: real agents and executors, and Python for the first command."""
    pool = sandboxes.start(lab, count)
    gateway = lab.gateway(sandboxes.configuration(pool, max=count))
    rounds = []
    for _ in range(5):
        sandboxes.ready(gateway, count)
        rounds.append(uvloop.run(group(gateway.url, gateway.token, count)))
    given, answered = (statistics.median(each) * 1000 for each in zip(*rounds, strict=True))
    print(f"{count} leases in one request: {given:.0f} ms; first command of each answered after {answered:.0f} ms")


def table(rows: list[Row], rates: tuple[float, ...]) -> None:
    ours = {row.target.era: row for row in rows if row.target.name.startswith("ours")}
    print(f"\n{'target':<24}{'CPU ms/call':>12}{'a core, 1/s':>12}{'ours: times':>12}", end="")
    print("".join(f"{f'{clients} cl, 1/s':>12}" for clients in CLIENTS))
    for row in rows:
        core = 1000 / row.cpu if row.cpu else float("nan")
        era = ours.get(row.target.era) or next(iter(ours.values()))
        factor = row.cpu / era.cpu if row.cpu else float("nan")
        print(f"{row.target.name:<24}{row.cpu:>12.3f}{core:>12.0f}{factor:>12.1f}", end="")
        cells = [f"{row.throughput(clients):.0f}" if clients in row.closed else "-" for clients in CLIENTS]
        print("".join(f"{cell:>12}" for cell in cells))
    for rate in rates:
        print(f"\nat {rate:.0f} calls/s{'':<12}{'p50 ms':>12}{'p99 ms':>12}{'added p50':>12}{'added p99':>12}")
        direct = {row.target.era: row for row in rows if row.target.name.startswith("direct")}
        for row in rows:
            if rate not in row.paced:
                print(f"{row.target.name:<24}{'can not do it':>24}")
                continue
            p50, p99 = row.latency(rate, 0.5), row.latency(rate, 0.99)
            base = direct[row.target.era]
            added = (p50 - base.latency(rate, 0.5), p99 - base.latency(rate, 0.99))
            print(f"{row.target.name:<24}{p50:>12.2f}{p99:>12.2f}{added[0]:>12.2f}{added[1]:>12.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round, 5,000 calls for memory")
    parser.add_argument("--seconds", type=float, default=4, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--calls", type=int, default=100_000, help="for the growth of memory")
    parser.add_argument(
        "--sandboxes", type=int, default=20, help="of a group; each takes about 130 MiB and 5 processes"
    )
    parser.add_argument("--without", action="append", default=[], help="leave a peer out: fastmcp, contextforge, sdk")
    given = parser.parse_args()
    seconds, rounds, calls = (1.5, 1, 5_000) if given.quick else (given.seconds, given.rounds, given.calls)
    rates = (50.0, 200.0, 500.0)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pinnace-bench-")))
        backend, backend_pid = stack.enter_context(peer(folder, "echo"))
        lab = Lab(folder)
        stack.callback(lab.stop)
        endpoint = backend.removesuffix("/mcp")
        gateway = lab.gateway({"servers": [{"name": "echo", "versions": [{"name": "v1", "endpoints": [endpoint]}],
                                            "maxInFlightPerReplica": 1024, "queue": 4096}],
                               "limits": {"maxInFlight": 4096}})  # fmt: skip
        gateway.wait_tools("echo")
        pid = gateway.process.pid if gateway.process else 0

        def ends(era: Era) -> list[Target]:
            direct = Target(f"direct, {era}", backend, era, backend_pid)
            return [direct, Target(f"ours, {era}", gateway.mcp, era, pid, gateway.headers)]

        targets = ends("modern")
        url, peer_pid = stack.enter_context(peer(folder, "forward", backend))
        targets.append(Target("byte-forward, modern", url, "modern", peer_pid))
        if "sdk" not in given.without:
            url, peer_pid = stack.enter_context(peer(folder, "sdk", backend))
            targets.append(Target("SDK on SDK, modern", url, "modern", peer_pid))
        if "fastmcp" not in given.without:
            fast, fast_pid = stack.enter_context(peer(folder, "fastmcp", backend, environment(FASTMCP)))
            targets.append(Target("FastMCP proxy, modern", fast, "modern", fast_pid))
        targets += ends("legacy")
        if "fastmcp" not in given.without:
            targets.append(Target("FastMCP proxy, legacy", fast, "legacy", fast_pid))
        if "contextforge" not in given.without:
            url, peer_pid, headers = stack.enter_context(contextforge(folder, backend))
            targets.append(Target("ContextForge, legacy", url, "legacy", peer_pid, headers, tool="echo-echo"))
        rows = [Row(target) for target in targets]
        began = time.monotonic()
        uvloop.run(measure(rows, seconds=seconds, rounds=rounds, rates=rates))
        table(rows, rates)
        legacy = next(row.target for row in rows if row.target.name == "ours, legacy")
        modern = next(row.target for row in rows if row.target.name == "ours, modern")
        good, kib = uvloop.run(sessions(legacy, 1000))
        print(f"\n1,000 MCP sessions at a time: {good} of 2000 calls succeeded, {kib:.1f} KiB a session")
        leases(lab, given.sandboxes)
        for target in (modern, legacy):
            first, last, speed = uvloop.run(growth(target, calls))
            about = f"{first:.1f} MiB after {calls // 10} calls, {last:.1f} MiB after {calls} more"
            print(f"{target.name}: {about} ({speed:.0f}/s)")
        load = f"{os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
        print(f"load of the machine at the end: {load}; {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
