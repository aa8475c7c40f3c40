"""Whose cluster runs on this machine, and that only one command changes it at a time."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from e2e.cluster.errors import ClusterError
from e2e.cluster.paths import OPERATION_LOCK, OWNER_FILE, Run


@dataclass(frozen=True)
class Owner:
    """The checkout that brought the cluster up, its run directory, and whether its supervisor lives."""

    checkout: Path
    run: Run
    alive: bool


def read(file: Path = OWNER_FILE) -> Owner | None:
    """Who owns the cluster of this machine, or None when there is none, not even a leftover."""
    try:
        told = json.loads(file.read_text())
    except (OSError, ValueError):
        return None
    return Owner(Path(told["checkout"]), Run(Path(told["run"])), _is_locked(file))


def claim(checkout: Path, run: Run, file: Path = OWNER_FILE) -> None:
    file.write_text(json.dumps({"checkout": str(checkout), "run": str(run.root)}))


def _is_locked(file: Path) -> bool:
    descriptor = os.open(file, os.O_RDWR)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def check(owner: Owner | None, checkout: Path, run: Run) -> None:
    """Raise ClusterError if the cluster that runs is another checkout's (or has another run directory)."""
    if owner and owner.alive and (owner.checkout, owner.run.root) != (checkout, run.root):
        raise ClusterError(
            f"the cluster of another checkout runs on this machine ({owner.checkout}), and addresses allow one only: "
            f"take it down there (`cd {owner.checkout} && pinnace cluster down`), or use it: "
            f"`KUBECONFIG={owner.run.kubeconfig} pinnace cluster up --provider current`"
        )


@contextmanager
def operation(file: Path = OPERATION_LOCK) -> Iterator[None]:
    """Hold the machine's lock on bringing clusters up and down.

    Raises:
        ClusterError: another command holds it, or this is not root.
    """
    descriptor = _lock(file)
    try:
        yield
    finally:
        file.unlink(missing_ok=True)  # while it is held: see `_lock`
        os.close(descriptor)


def _lock(file: Path) -> int:
    while True:
        try:
            descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
        except PermissionError:
            raise ClusterError("not root: the cluster makes network namespaces and mounts; run it with sudo") from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Whoever held it may have removed it between our open and our lock: then it is no longer the lock.
            if file.exists() and file.stat().st_ino == os.fstat(descriptor).st_ino:
                return descriptor
        except BlockingIOError:
            os.close(descriptor)
            raise ClusterError(
                "another `pinnace cluster` command is at work on this machine: wait until it is done"
            ) from None
        os.close(descriptor)
