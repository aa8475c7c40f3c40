"""A control group for one container of a test: what bounds its attacks when the code under test does not."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_ROOT = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Cgroup:
    """Version 1 or 2; only the folders that could be made."""

    folders: tuple[Path, ...]

    @property
    def procs(self) -> list[str]:
        """The files that take a pid."""
        return [str(folder / "cgroup.procs") for folder in self.folders]

    def remove(self) -> None:
        """When its processes are gone; one that just ended keeps it busy for a moment."""
        deadline = time.monotonic() + 5
        left = list(self.folders)
        while left and time.monotonic() < deadline:
            for folder in list(left):
                with suppress(OSError):
                    folder.rmdir()
                    left.remove(folder)


def create(name: str, *, pids: int, memory: int) -> Cgroup:
    """Limits processes and memory (bytes, swap included). Raises `OSError` where this machine does not let us."""
    if (_ROOT / "cgroup.controllers").exists():
        folder = _ROOT / name
        folder.mkdir()
        (folder / "pids.max").write_text(str(pids))
        (folder / "memory.max").write_text(str(memory))
        with suppress(OSError):
            (folder / "memory.swap.max").write_text("0")
        return Cgroup((folder,))
    folders = (_ROOT / "pids" / name, _ROOT / "memory" / name)
    for folder in folders:
        folder.mkdir()
    (folders[0] / "pids.max").write_text(str(pids))
    (folders[1] / "memory.limit_in_bytes").write_text(str(memory))
    with suppress(OSError):
        (folders[1] / "memory.memsw.limit_in_bytes").write_text(str(memory))
    return Cgroup(folders)
