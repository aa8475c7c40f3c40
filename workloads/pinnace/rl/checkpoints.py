"""Checkpoints of a run: `model/` (a Hugging Face folder) and `state/` (what the engine resumes from). No torch."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pinnace.storage import RunDirectory


@dataclass(frozen=True)
class Saved:
    """A durable checkpoint, on local disk by now."""

    step: int
    folder: Path
    uri: str


class Checkpoints(Protocol):
    """`durable(step)`, given at the start, is called once a checkpoint can't be lost any more."""

    def newest(self) -> Saved | None: ...

    def staging(self, step: int) -> Path:
        """An empty folder, the same for all ranks."""
        ...

    def commit(self, step: int, staged: Path) -> None:
        """Takes the folder over; may return before the checkpoint is durable."""
        ...

    def wait(self, seconds: float | None) -> None:
        """Until everything committed is durable; raises when it is not in time."""
        ...


class DiskCheckpoints:
    """In a folder; complete by a rename."""

    def __init__(self, root: Path, *, keep: int, durable: Callable[[int], None]) -> None:
        self._root, self._keep, self._durable = root, keep, durable

    def newest(self) -> Saved | None:
        found = sorted(self._root.glob("step-*"))
        return Saved(int(found[-1].name[5:]), found[-1], str(found[-1])) if found else None

    def staging(self, step: int) -> Path:
        return _empty(self._root / f".step-{step:08d}")

    def commit(self, step: int, staged: Path) -> None:
        os.sync()
        final = self._root / f"step-{step:08d}"
        shutil.rmtree(final, ignore_errors=True)
        staged.rename(final)
        self._durable(step)
        for old in sorted(self._root.glob("step-*"))[: -self._keep]:
            shutil.rmtree(old)

    def wait(self, seconds: float | None) -> None:
        """Nothing is under way."""


class S3Checkpoints:
    """By the contract of `pinnace.storage`, uploaded while training goes on."""

    def __init__(self, run: RunDirectory, scratch: Path, *, keep: int) -> None:
        """The run's listener is told what is durable."""
        self._run, self._scratch, self._keep = run, scratch, keep

    def newest(self) -> Saved | None:
        folder = _empty(self._scratch / "resume")
        found = self._run.checkpoints.restore(folder)
        self._run.checkpoints.rewind(found)
        return Saved(found.step, folder, found.uri) if found else None

    def staging(self, step: int) -> Path:
        return _empty(self._scratch / f"step-{step:08d}")

    def commit(self, step: int, staged: Path) -> None:
        upload = self._run.checkpoints.begin(step)
        for part in ("model", "state"):
            upload.add(staged / part, to=part, keep_local=False)
        upload.commit(policy_version=step)
        self._run.checkpoints.retain(last=self._keep)

    def wait(self, seconds: float | None) -> None:
        self._run.checkpoints.wait(seconds)


def _empty(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
