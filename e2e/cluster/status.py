"""`pinnace cluster status`: what runs, how it is, and how to reach it."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console
from rich.table import Table

from e2e.cluster import addons, components, health, owner, processes
from e2e.cluster.embedded import Embedded
from e2e.cluster.errors import ClusterError
from e2e.cluster.kubectl import Kubectl
from e2e.cluster.paths import Run


class Reachable(Protocol):
    name: str

    @property
    def kubeconfig(self) -> Path: ...


@dataclass(frozen=True)
class ComponentStatus:
    name: str
    pid: int
    restarts: int
    rss_bytes: int
    #: Why it is not healthy, or None.
    problem: str | None


def component_status(run: Run) -> list[ComponentStatus]:
    """Every component, asked now; nothing when `up` never ran here."""
    told: dict[str, Any] = {}
    with suppress(OSError, ValueError):
        told = json.loads(run.state.read_text())["components"]
    try:
        wanted = components.load(run)
    except OSError:
        return []
    running = processes.mains(run, {c.name: c.command for c in wanted})
    found = []
    for component in wanted:
        process, record = running.get(component.name), told.get(component.name, {})
        problem = "not running" if process is None else health.problem(component.health, run)
        rss = process.rss_bytes if process else 0
        found.append(
            ComponentStatus(component.name, process.pid if process else 0, record.get("restarts", 0), rss, problem)
        )
    return found


def print_report(target: Reachable, console: Console) -> bool:
    """Print it; whether all of it is healthy."""
    healthy = _embedded(console) if isinstance(target, Embedded) else True
    try:
        console.print(
            Kubectl(target.kubeconfig)("get", "nodes,deployments,statefulsets", "--all-namespaces"),
            end="",
            markup=False,
        )
    except ClusterError as error:
        console.print(f"the API server does not answer: {error}", markup=False)
        return False
    console.print(f"KUBECONFIG={target.kubeconfig}", highlight=False, soft_wrap=True)
    with suppress(ClusterError):
        s3 = addons.access(Kubectl(target.kubeconfig))
        where = f"S3 {s3.endpoint} (from pods and from this machine), bucket {s3.bucket}"
        secret = f"access key {s3.access_key}, secret in Secret {addons.STORAGE_NAMESPACE}/s3"
        console.print(f"{where}, {secret}", highlight=False, soft_wrap=True)
    return healthy


def _embedded(console: Console) -> bool:
    current = owner.read()
    if not current or not current.alive:
        console.print(
            "the embedded cluster is down"
            + (" but was not taken down cleanly: `up` or `down` repairs that" if current else "")
        )
        if not current:
            return False
    else:
        console.print(f"embedded cluster of {current.checkout}", highlight=False, soft_wrap=True)
    table = Table("component", "health", "pid", "restarts", "RSS MiB")
    rows = component_status(current.run)
    for row in rows:
        state = "[green]ok[/green]" if row.problem is None else f"[red]{row.problem}[/red]"
        table.add_row(row.name, state, str(row.pid or "-"), str(row.restarts), f"{row.rss_bytes / 2**20:.0f}")
    table.add_section()
    table.add_row(
        "all", "", "", str(sum(row.restarts for row in rows)), f"{sum(row.rss_bytes for row in rows) / 2**20:.0f}"
    )
    console.print(table)
    return current.alive and all(row.problem is None for row in rows)
