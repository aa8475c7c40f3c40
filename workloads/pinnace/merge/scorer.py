"""Scores candidates: each comes from S3 to local disk, a process of its own computes the losses."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from pinnace.storage import Storage
from pinnace.storage.artifacts import Published

from .errors import Interrupted
from .heldout import HeldOut
from .sweep import Score

_KILLED = -9
_LINES = 20


class ScoringFailed(Exception):
    """The scoring process ended with an error; the message has its last lines."""


class Scorer:
    """Scores one candidate after the other; a context that ends the process.

    Args:
        scratch: a folder for the models.
        stop: when it is set, scoring ends with `Interrupted`.
        told: hears (samples done, of so many) after each sample.
    """

    def __init__(
        self,
        storage: Storage,
        data: HeldOut,
        device: str,
        scratch: Path,
        stop: threading.Event,
        told: Callable[[int, int], None],
    ) -> None:
        self._storage, self._scratch, self._stop, self._told = storage, scratch, stop, told
        self._process = subprocess.Popen(
            [sys.executable, "-m", "pinnace.merge.score", str(data.path), device],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._said: deque[str] = deque(maxlen=_LINES)
        self._listener = threading.Thread(target=lambda: self._said.extend(self._process.stderr or ()), daemon=True)
        self._listener.start()
        threading.Thread(target=self._watch, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()

    def __call__(self, candidate: Published) -> Score:
        """Raises `Interrupted`, `MemoryError`, `ScoringFailed`, and what fetching raises."""
        model = self._scratch / "candidate"
        try:
            self._storage.fetch(candidate.uri, model, candidate.digest)
            return self._losses(model)
        finally:
            shutil.rmtree(model, ignore_errors=True)

    def _losses(self, model: Path) -> Score:
        assert self._process.stdin  # noqa: S101 -- pipes, as asked for
        assert self._process.stdout  # noqa: S101
        try:
            self._process.stdin.write(f"{model}\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._failure() from None
        for line in self._process.stdout:
            told = json.loads(line)
            if "of" not in told:
                return Score(told["special"], told["general"])
            self._told(told["samples"], told["of"])
        raise self._failure()

    def _failure(self) -> Exception:
        """Why the process is gone."""
        code = self._process.wait()
        self._listener.join()
        if self._stop.is_set():
            return Interrupted("the sweep was asked to stop; what is scored stays, and the same job goes on")
        if code == _KILLED:
            return MemoryError("the process that scores a candidate was killed: the model does not fit into memory")
        text = "".join(self._said).strip()
        if "OutOfMemoryError" in text:
            return MemoryError(f"the device's memory is full: {text.splitlines()[-1]}")
        return ScoringFailed(f"transformers could not score the candidate (exit code {code}):\n{text}")

    def _watch(self) -> None:
        """Ends the process when the job is asked to stop."""
        self._stop.wait()
        self._process.kill()
