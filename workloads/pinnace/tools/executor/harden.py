"""What an interpreter does to itself before it takes the first line of the model's code."""

from __future__ import annotations

import json
import os
import resource
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self

from pinnace.tools.executor import linux, seccomp

VARIABLE = "PINNACE_HARDENING"
"""Environment variable that carries `Hardening` from the supervisor to an interpreter, which removes it."""


@dataclass(frozen=True)
class Limits:
    """What a lease may use. The container's cgroup stands behind all of it."""

    memory_mib: int = 512
    """Data segment of a process (`RLIMIT_DATA`: a clean `MemoryError`), and resident memory of all (watched)."""
    processes: int = 64
    """Processes of the lease at one time (watched; the pod's pids cgroup is the hard border)."""
    cpu_seconds: int = 3600
    """CPU time of one process (`RLIMIT_CPU`)."""
    file_mib: int = 128
    """Largest file (`RLIMIT_FSIZE`)."""
    open_files: int = 512
    """Descriptors of one process (`RLIMIT_NOFILE`)."""
    output_kib: int = 64
    """Kept of stdout and of stderr of one call; the middle is left out and counted."""
    timeout_seconds: float = 60
    """Of a call that names none."""
    longest_seconds: float = 600
    """No call may ask for more."""

    @classmethod
    def parse(cls, value: Mapping[str, Any]) -> Self:
        """From JSON. Raises `ValueError` for a field that is unknown, no number, or not positive."""
        known = {field.name for field in fields(cls)}
        for name, given in value.items():
            if name not in known:
                raise ValueError(f"limit {name} is unknown; known are {', '.join(sorted(known))}")
            if isinstance(given, bool) or not isinstance(given, int | float) or not 0 < given < 2**40:
                raise ValueError(f"limit {name} must be a positive number, not {given!r}")
        exact = {name: given if name.endswith("_seconds") else int(given) for name, given in value.items()}
        return cls(**(exact | ({"cpu_seconds": int(exact["cpu_seconds"])} if "cpu_seconds" in exact else {})))

    def resources(self) -> dict[int, int]:
        """The rlimits of one process."""
        return {
            resource.RLIMIT_DATA: self.memory_mib * 2**20,
            resource.RLIMIT_FSIZE: self.file_mib * 2**20,
            resource.RLIMIT_NOFILE: self.open_files,
            resource.RLIMIT_CPU: self.cpu_seconds,
        }


@dataclass(frozen=True)
class Hardening:
    """What the supervisor tells an interpreter."""

    supervisor: int
    network: bool
    limits: Limits | None = None
    """From the start on; None where the interpreter is armed later."""

    def dump(self) -> str:
        """For `VARIABLE`."""
        return json.dumps(asdict(self))

    @classmethod
    def from_environment(cls) -> Self:
        """Takes it out of the environment. Raises `KeyError` where there is none: no code without hardening."""
        given = json.loads(os.environ.pop(VARIABLE))
        limits = given.pop("limits")
        return cls(**given, limits=Limits(**limits) if limits else None)


def harden(hardening: Hardening, *, hide: bool) -> None:
    """No way back from here, for this process and all below it. Raises `OSError` where the kernel lacks a part of it.

    Args:
        hardening: of the supervisor.
        hide: for an interpreter that runs our code only: nobody may trace it or read its memory.
    """
    os.umask(0o022)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with suppress(OSError, PermissionError):  # the first to go when memory is short; /proc may be read-only
        Path("/proc/self/oom_score_adj").write_text("1000")
    if hardening.limits is not None:
        limit(hardening.limits)
    linux.become_subreaper()
    linux.forbid_new_privileges()
    if hide:
        linux.hide_from_ptrace()
    linux.install_filter(seccomp.program(seccomp.Policy(supervisor=hardening.supervisor, network=hardening.network)))


def limit(limits: Limits, pid: int = 0) -> None:
    """Sets soft and hard limits of a running process; they can't be raised again."""
    for kind, value in limits.resources().items():
        _, hard = resource.prlimit(pid, kind)
        lower = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.prlimit(pid, kind, (lower, lower))
