"""Control groups of pods, version 1 and 2."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path

from e2e.cluster import processes

ROOT = Path("/sys/fs/cgroup")
#: What kubelet asks for. Version 2 has cpu accounting, devices and freezing in its core.
NEEDED_V1 = ("cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "pids")
NEEDED_V2 = ("cpu", "cpuset", "memory", "pids")


def is_v2(root: Path = ROOT) -> bool:
    """Whether the host has the unified hierarchy only."""
    return (root / "cgroup.controllers").exists()


def missing_controllers(root: Path = ROOT) -> list[str]:
    if is_v2(root):
        there = (root / "cgroup.controllers").read_text().split()
        return [name for name in NEEDED_V2 if name not in there]
    return [name for name in NEEDED_V1 if not (root / name / "cgroup.procs").exists()]


def pod_roots(root: Path = ROOT) -> list[Path]:
    """The top group of all pods in every hierarchy."""
    return [path for path in (root / "kubepods", *root.glob("*/kubepods")) if path.is_dir()]


def kill_pods(root: Path = ROOT) -> None:
    """Kill every process in a pod; several times, for one may fork while we look."""
    deadline = time.monotonic() + 10
    while (
        pids := {pid for group in pod_roots(root) for pid in processes.in_cgroup(group)}
    ) and time.monotonic() < deadline:
        processes.end(pids, grace=0)


def remove_pods(root: Path = ROOT) -> None:
    """Remove the groups of pods, leaves first. One whose last process just ended stays busy for a moment."""
    deadline = time.monotonic() + 5
    while (roots := pod_roots(root)) and time.monotonic() < deadline:
        for group in roots:
            for directory, _, _ in os.walk(group, topdown=False):
                with suppress(OSError):
                    Path(directory).rmdir()
        if pod_roots(root):
            time.sleep(0.05)
