"""How quick and how heavy the operator is: `python e2e/bench/reconcile.py [--jobs 50] [--idle 1000]`.

On a real API server, with the operator as a process. The time from a child's event to the status write is taken from
sending the pod's status update to the arrival of the status write at a proxy in front of the API server, so it includes
the API server's work and the proxy's own (1 to 2 ms).
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from e2e.apiserver import api_server
from e2e.faults.api import SFTJOBS, Api, eventually
from e2e.faults.cluster import Hands, install_crds, sftjob
from e2e.faults.operator_process import OperatorProcess, operator_process
from e2e.faults.proxy import FaultProxy, fault_proxy

# A production operator's timings, but for the resync, which must not run while latency is measured.
SETTINGS = {"RESYNC_PERIOD": "3600", "BACKOFF_BASE": "0.2", "STATUS_INTERVAL": "5", "LOG_LEVEL": "WARNING"}


def latency(hands: Hands, proxy: FaultProxy, jobs: int) -> dict[str, Any]:
    """Milliseconds from the pod's status update to the operator's status write, and the writes of a job's life."""
    took: list[float] = []
    eventually("the CA is stored", hands.ca)
    proxy.writes.clear()
    for number in range(jobs):
        name = f"job-{number}"
        hands.submit(name)
        pod = hands.create_pod(hands.wait_jobset(name))
        eventually(f"{name} is starting", lambda name=name: (hands.job(name) or {}).get("status"))  # type: ignore[misc]  # a lambda's default
        steps: tuple[Callable[[], None], ...] = (
            functools.partial(hands.run_pod, pod),
            functools.partial(hands.complete_after_run, name),
        )
        for step in steps:
            seen = len(proxy.writes)
            sent = time.monotonic()
            step()
            took.append(eventually("a status write", _status_write(proxy, name, seen), poll=0.002) - sent)
        eventually(f"{name} is complete", lambda name=name: hands.state(name) == "Complete")  # type: ignore[misc]  # a lambda's default
    writes: dict[str, float] = {}
    for write in proxy.writes:
        kind = next(part for part in ("status", "jobsets", "events", "secrets", "sftjobs") if part in write.call.path)
        writes[kind] = writes.get(kind, 0) + 1 / jobs
    took.sort()
    return {
        "jobs": jobs,
        "child_event_to_status_write_ms": {
            "p50": round(statistics.median(took) * 1000, 1),
            "p99": round(took[int(len(took) * 0.99)] * 1000, 1),
            "samples": len(took),
        },
        "api_writes_of_one_life": {kind: round(number, 2) for kind, number in sorted(writes.items())},
        "api_writes_of_one_life_total": round(sum(writes.values()), 2),
    }


def _status_write(proxy: FaultProxy, name: str, seen: int) -> Callable[[], float | None]:
    def found() -> float | None:
        return next((each.came for each in proxy.writes[seen:] if each.call.path.endswith(f"/{name}/status")), None)

    return found


def idle(hands: Hands, operator: OperatorProcess, api: Api, number: int) -> dict[str, Any]:
    """Memory with `number` suspended jobs, and the time that a restarted operator needs to have seen all of them."""
    alone = operator.resident_mib()
    for each in range(number):
        api.create(SFTJOBS.format(hands.namespace), sftjob(hands.namespace, f"idle-{each}", suspend=True))
    done = "pinnace_reconcile_seconds_count"
    eventually("all were seen", lambda: _all_have_status(hands, number), 600, poll=1)
    eventually("the queue is empty", lambda: operator.metric("pinnace_queue_depth") == 0, 600, poll=0.5)
    full = operator.resident_mib()
    operator.kill()
    hands.delete_lease()
    started = time.monotonic()
    operator.start()
    eventually("all were reconciled again", lambda: operator.metric(done) >= number, 600, poll=0.2)
    restart = time.monotonic() - started
    return {
        "idle_jobs": number,
        "operator_rss_mib": {
            "start": round(alone, 1), "with_idle_jobs": round(full, 1), "restarted": round(operator.resident_mib(), 1),
        },
        "restart_to_all_reconciled_s": round(restart, 1),
    }  # fmt: skip


def _all_have_status(hands: Hands, number: int) -> bool:
    jobs = hands.api.items(SFTJOBS.format(hands.namespace))
    return sum(1 for job in jobs if (job.get("status") or {}).get("state") == "Suspended") >= number


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=50)
    parser.add_argument("--idle", type=int, default=1000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as text, api_server() as server:
        directory = Path(text)
        api = Api(server.kubeconfig)
        install_crds(api)
        hands = Hands(api, "bench")
        hands.create_namespace()
        with fault_proxy(server.kubeconfig, directory) as proxy:
            settings = SETTINGS | {"WATCH_NAMESPACES": "bench"}
            with operator_process(proxy.kubeconfig, directory, namespace="bench", settings=settings) as operator:
                operator.wait_ready()
                operator.wait_leads()
                figures: dict[str, Any] = {"load_average_at_start": os.getloadavg()[0]}
                figures |= latency(hands, proxy, given.jobs)
                figures |= idle(hands, operator, api, given.idle)
    out = Path("out")
    out.mkdir(exist_ok=True)
    (out / "bench-reconcile.json").write_text(json.dumps(figures, indent=1) + "\n")
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
