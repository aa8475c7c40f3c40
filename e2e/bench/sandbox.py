"""Time from asking for a lease to the first command's reply, on warm pods, counted in one process as a gateway would.

    .venv/bin/python e2e/bench/sandbox.py [PODS] [LEASES]

Needs root (the pods are containers made by unshare). Prints one JSON line; times in milliseconds.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

from e2e.sandbox.pod import Pod, pod


def _cpu_seconds(pods: list[Pod]) -> float:
    """Of agents and sandboxes, from their control groups."""
    total = 0.0
    for each in pods:
        for container in each.containers.values():
            for process in Path(f"/proc/{container.pid}/task").glob("*/stat"):
                fields = process.read_text().rpartition(")")[2].split()
                total += (int(fields[11]) + int(fields[12]) + int(fields[13]) + int(fields[14])) / 100
    return total


def _lease_and_first_command(each: Pod, code: str) -> float:
    started = time.perf_counter()
    each.arm(env={"TASK": "1"})
    result = each.tool("python", code=code)
    ended = time.perf_counter()
    assert result.text == "42", result.text
    return (ended - started) * 1000


def main(pods: int, leases: int) -> None:
    """Prints medians and the time of batches that take the whole pool at once."""
    with ExitStack() as stack, ThreadPoolExecutor(pods) as threads:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        pool = [stack.enter_context(pod(folder / str(number))) for number in range(pods)]
        for each in pool:
            each.wait("free", 60)
        single, batches, resets, before = [], [], [], _cpu_seconds(pool)
        for number in range(leases):
            each = pool[number % pods]
            each.request("GET", "/lease")  # the connection is there, as a gateway's is
            single.append(_lease_and_first_command(each, "6 * 7"))
            started = time.perf_counter()
            each.release()
            resets.append((time.perf_counter() - started) * 1000)
        used = _cpu_seconds(pool) - before
        list(threads.map(lambda each: each.request("GET", "/lease"), pool))
        for _ in range(5):
            started = time.perf_counter()
            list(threads.map(lambda each: _lease_and_first_command(each, "6 * 7"), pool))
            batches.append((time.perf_counter() - started) * 1000)
            list(threads.map(lambda each: each.release(), pool))
        warm = []
        pool[0].arm()
        for _ in range(200):
            started = time.perf_counter()
            pool[0].tool("python", code="6 * 7")
            warm.append((time.perf_counter() - started) * 1000)
        print(
            json.dumps(
                {
                    "leaseToFirstReply": {"p50": round(statistics.median(single), 1), "max": round(max(single), 1)},
                    "release": {"p50": round(statistics.median(resets), 1)},
                    "cpuPerLeaseAndRelease": round(used / leases * 1000, 1),
                    "batch": {"leases": pods, "p50": round(statistics.median(batches), 1)},
                    "warmCall": {"p50": round(statistics.median(warm), 2), "p99": round(sorted(warm)[197], 2)},
                }
            )
        )


if __name__ == "__main__":
    main(*(int(argument) for argument in (sys.argv[1:] or ["8", "40"])))
