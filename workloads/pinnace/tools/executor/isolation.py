"""How strongly this machine can wall off an interpreter: found out at start by trying, and reported."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pinnace.tools.executor import linux

Level = Literal["none", "container", "bubblewrap", "gvisor"]
"""`none`: a bare process on a developer's machine, where rlimits and the seccomp filter are all there is."""
_SECONDS = 10


@dataclass(frozen=True)
class Isolation:
    """The level in force and what is put before an interpreter's command."""

    level: Level
    prefix: tuple[str, ...] = ()


def probe(*, workspace: str, scratch: str, network: bool, bubblewrap: bool = True) -> Isolation:
    """Tries the strongest first. A pod whose seccomp profile forbids namespaces ends at `container`."""
    if "gVisor" in linux.kernel_log():
        return Isolation("gvisor")
    program = shutil.which("bwrap") if bubblewrap else None
    if program is not None:
        # A fresh /proc needs an unmasked one around it, which most container runtimes don't give. Without one the pid
        # namespace must stay that of the container: /proc/self would be nobody, and bash, ps and many more need it.
        for views in (
            ["--unshare-pid", "--proc", "/proc", "--dev", "/dev"],
            ["--dev", "/dev"],
            ["--dev-bind", "/dev", "/dev"],
        ):
            prefix = _bubblewrap(program, views, workspace=workspace, scratch=scratch, network=network)
            if _works(prefix):
                return Isolation("bubblewrap", prefix)
    return Isolation("container" if os.getpid() == 1 else "none")


def _bubblewrap(program: str, views: Sequence[str], *, workspace: str, scratch: str, network: bool) -> tuple[str, ...]:
    own = ["--unshare-user", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"]
    folders = ["--ro-bind", "/", "/", *views, "--bind", workspace, workspace, "--bind", scratch, scratch]
    network_of_its_own = [] if network else ["--unshare-net"]
    rest = ["--tmpfs", "/run", "--cap-drop", "ALL", "--die-with-parent", "--chdir", workspace, "--"]
    return (program, *own, *network_of_its_own, *folders, *rest)


def _works(prefix: Sequence[str]) -> bool:
    try:
        done = subprocess.run(
            [*prefix, "/bin/sh", "-c", "test -e /proc/self/fd/2"], capture_output=True, timeout=_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0
