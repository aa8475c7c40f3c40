"""The supervisor's settings, and what interpreters are born and armed with."""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass
from pathlib import Path

from pinnace.tools.executor.harden import VARIABLE, Hardening, Limits

_CATALOGUE = ("PINNACE_CATALOGUE", "PINNACE_CATALOGUE_NPM")
_SHARED_MEMORY = "/dev/shm"  # noqa: S108 - the container's own


@dataclass(frozen=True)
class Settings:
    """The supervisor's command line."""

    socket: str
    workspace: str = "/workspace"
    scratch: str = "/tmp"  # noqa: S108 - the container's own, emptied at each reset
    network: bool = False
    bubblewrap: bool = True
    servers: tuple[str, ...] = ()
    """Of the catalogue, that run besides python, shell and files."""
    grace_seconds: float = 1.0
    """Between SIGINT and SIGKILL."""

    def emptied(self) -> list[str]:
        """Every folder that the code can write to; in a container /dev/shm too, which outlives its processes."""
        shared = os.getpid() == 1 and Path(_SHARED_MEMORY).is_dir()
        return [self.workspace, self.scratch, *([_SHARED_MEMORY] if shared else [])]


def start_environment(settings: Settings, limits: Limits | None) -> dict[str, str]:
    """Everything that an interpreter is born with; nothing of ours is inherited."""
    hardening = Hardening(supervisor=os.getpid(), network=settings.network, limits=limits)
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": settings.scratch,
        "TMPDIR": settings.scratch,
        "LANG": "C.UTF-8",
        "TERM": "dumb",
        "MPLBACKEND": "Agg",
        "PYTHONDONTWRITEBYTECODE": "1",
        VARIABLE: hardening.dump(),
    }


def server_environment(settings: Settings) -> dict[str, str]:
    """Also where the catalogue's packages are."""
    return start_environment(settings, None) | {name: os.environ[name] for name in _CATALOGUE if name in os.environ}


def shell_arming(environment: dict[str, str], limits: Limits) -> str:
    """What the session's shell runs when it is armed; the units are bash's."""
    exports = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in environment.items())
    return (
        f"{exports}ulimit -d {limits.memory_mib * 1024} && ulimit -f {limits.file_mib * 1024} "
        f"&& ulimit -n {limits.open_files} && ulimit -t {limits.cpu_seconds}"
    )
