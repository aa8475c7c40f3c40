"""Faults under load: `python e2e/bench/gateway_soak.py [--seconds 60]` (600 for the long one). Prints the table.

Three replicas, a backup tool on a fourth server, two gateways. One fault after another: a replica killed, hung, slow,
answering garbage, a gateway killed. Of the calls to a tool that is safe to repeat none may be lost; of the others each
may run at most once, and every end is typed. A client whose gateway is gone asks the other one, as behind a Service.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

from pinnace.tools.client import ToolClient
from pinnace.tools.outcome import Outcome, ToolResult

from e2e.gateway.faulty import FaultyReplica, faulty
from e2e.gateway.lab import Backend, Gateway, Lab, server

WORKERS = 12
EVERY = 4.0  # seconds between two faults


@dataclass
class Count:
    """What happened while one fault was in force."""

    times: int = 0
    safe: Counter[str] = field(default_factory=Counter)
    unsafe: Counter[str] = field(default_factory=Counter)
    moved: int = 0
    backups: int = 0
    slowest: float = 0.0


class Soak:
    """The load, and the counts."""

    def __init__(self, gateways: list[Gateway], backends: list[Backend]) -> None:
        self.gateways = gateways
        self.backends = backends
        self.counts: dict[str, Count] = {}
        self.fault = "none"
        self.stop = False
        self._numbers = itertools.count()

    @property
    def now(self) -> Count:
        return self.counts.setdefault(self.fault, Count())

    async def worker(self, index: int) -> None:
        """Calls without pause; every fourth one is of the tool that must not run twice."""
        clients = [ToolClient(gateway.url, token=gateway.token) for gateway in self.gateways]
        while not self.stop:
            number = next(self._numbers)
            unsafe = number % 4 == 0
            began = time.monotonic()
            count = self.now
            name, arguments = ("pay", {"amount": number}) if unsafe else ("search", {"q": str(number)})
            result = await clients[index % 2].call(name, arguments, timeout_seconds=20)
            if not unsafe and result.outcome is Outcome.UNAVAILABLE and _gone(result):
                count.moved += 1
                result = await clients[(index + 1) % 2].call(name, arguments, timeout_seconds=20)
            (count.unsafe if unsafe else count.safe)[str(result.outcome)] += 1
            count.backups += "backup" in result.meta
            count.slowest = max(count.slowest, time.monotonic() - began)
        for client in clients:
            await client.close()

    def ran_twice(self) -> int:
        """Unsafe calls that ran more than once."""
        amounts = Counter(line.split()[-1] for line in self.backends[0].ran("pay"))
        return sum(times > 1 for times in amounts.values())


def _gone(result: ToolResult) -> bool:
    return result.error is not None and "can't be reached" in result.error.message


async def kill_replica(soak: Soak) -> None:
    victim = soak.backends[0]
    victim.send(signal.SIGKILL)
    await asyncio.sleep(EVERY / 2)
    await asyncio.to_thread(restart, victim)


async def hang_replica(soak: Soak) -> None:
    victim = soak.backends[1]
    victim.send(signal.SIGSTOP)
    await asyncio.sleep(EVERY)
    victim.send(signal.SIGCONT)


async def kill_all_replicas(soak: Soak) -> None:
    """The backup tool's server is all that is left."""
    for victim in soak.backends[:3]:
        victim.send(signal.SIGKILL)
    await asyncio.sleep(EVERY / 2)
    for victim in soak.backends[:3]:
        await asyncio.to_thread(restart, victim)


async def kill_gateway(soak: Soak) -> None:
    victim = soak.gateways[0]
    victim.send(signal.SIGKILL)
    await asyncio.sleep(EVERY / 2)
    await asyncio.to_thread(restart, victim)


def restart(process: Backend | Gateway) -> None:
    """At the same address, as behind a Service."""
    port = process.port_file.read_text()
    process.stop()
    process.command[process.command.index("--port") + 1] = port
    process.start()
    assert process.port


async def run(soak: Soak, seconds: float, broken: FaultyReplica) -> None:
    async def answer(fault: str) -> None:
        broken.fault = "cut" if fault == "cut" else "garbage"
        await asyncio.sleep(EVERY)

    faults: dict[str, Callable[[], Awaitable[None]]] = {
        "a replica is killed": lambda: kill_replica(soak),
        "a replica hangs (SIGSTOP)": lambda: hang_replica(soak),
        "a replica answers garbage": lambda: answer("garbage"),
        "a replica cuts connections": lambda: answer("cut"),
        "all replicas are killed": lambda: kill_all_replicas(soak),
        "a gateway is killed": lambda: kill_gateway(soak),
    }
    workers = [asyncio.create_task(soak.worker(index)) for index in range(WORKERS)]
    end = time.monotonic() + seconds
    for name in itertools.cycle(faults):
        await asyncio.sleep(EVERY / 2)
        if time.monotonic() >= end:
            break
        soak.fault = name
        soak.now.times += 1
        await faults[name]()
        await asyncio.sleep(EVERY / 2)
        soak.fault = "none"
    soak.stop = True
    await asyncio.gather(*workers)


def table(soak: Soak) -> int:
    head = f"{'fault':<28}{'times':>6}{'safe calls':>12}{'lost':>6}{'moved':>7}{'backup':>8}{'slowest s':>11}"
    print(f"\n{head}  other calls")
    lost = 0
    for name, count in soak.counts.items():
        missing = count.safe.total() - count.safe["ok"]
        lost += missing
        ends = ", ".join(f"{outcome} {number}" for outcome, number in sorted(count.unsafe.items()))
        print(
            f"{name:<28}{count.times:>6}{count.safe.total():>12}{missing:>6}{count.moved:>7}{count.backups:>8}"
            f"{count.slowest:>11.2f}  {ends}"
        )
    twice = soak.ran_twice()
    print(f"safe calls lost: {lost}; other calls that ran twice: {twice}")
    return lost + twice


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="pinnace-soak-") as folder, faulty("garbage") as broken:
        lab = Lab(Path(folder))
        try:
            backends = [lab.backend(f"replica-{number}", extra="search") for number in range(3)]
            standby = lab.backend("standby", extra="find_pages")
            mapping = {"argumentMapping": {"q": "$.q"}, "resultMapping": {"text": "$.structuredContent.result"}}
            main_server = server("main", *backends, include=["search", "pay"], ejectionSeconds=2)
            main_server["versions"][0]["endpoints"].append(broken.url)
            config = {
                "servers": [main_server, server("standby", standby, include=["find_pages"])],
                "tools": [{"server": "main", "tool": "search", "backups": [{"tool": "find_pages", **mapping}]}],
                "limits": {"retryBudgetPercent": 100},
            }
            gateways = [lab.gateway(config) for _ in range(2)]
            for gateway in gateways:
                gateway.wait_tools("search", "find_pages", "pay")
            soak = Soak(gateways, [*backends, standby])
            asyncio.run(run(soak, given.seconds, broken))
            return min(1, table(soak))
        finally:
            lab.stop()


if __name__ == "__main__":
    raise SystemExit(main())
