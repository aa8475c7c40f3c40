"""Scores candidates: the model comes from S3 to local disk, a process of its own computes the losses."""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pinnace.storage import Storage
from pinnace.storage.artifacts import Published

from .errors import Interrupted
from .heldout import HeldOut
from .sweep import Score

log = logging.getLogger(__name__)
_KILLED = -9


class ScoringFailed(Exception):
    """The scoring process ended with an error; the message has its last lines."""


@dataclass(frozen=True)
class Scorer:
    """Scores one candidate after the other. `told` hears (samples done, of so many) after each sample."""

    storage: Storage
    data: HeldOut
    device: str
    scratch: Path
    stop: threading.Event
    told: Callable[[int, int], None]

    def __call__(self, candidate: Published) -> Score:
        """Raises `Interrupted`, `MemoryError`, `ScoringFailed`, and what fetching raises."""
        model = self.scratch / "candidate"
        try:
            self.storage.fetch(candidate.uri, model, candidate.digest)
            return self._losses(model)
        finally:
            shutil.rmtree(model, ignore_errors=True)

    def _losses(self, model: Path) -> Score:
        command = [sys.executable, "-m", "pinnace.merge.score", str(model), str(self.data.path), self.device]
        last: dict[str, float] = {}
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            said: deque[str] = deque(maxlen=20)
            listener = threading.Thread(target=lambda: said.extend(process.stderr or ()), daemon=True)
            listener.start()
            ended = threading.Event()
            threading.Thread(target=self._watch, args=(process, ended), daemon=True).start()
            for line in process.stdout or ():
                last = json.loads(line)
                if "of" in last:
                    self.told(int(last["samples"]), int(last["of"]))
            code = process.wait()
            ended.set()
            listener.join()
        if self.stop.is_set():
            raise Interrupted("the sweep was asked to stop; what is scored stays, and the same job goes on")
        if code == _KILLED:
            raise MemoryError("the process that scores a candidate was killed: the model does not fit into memory")
        if code:
            text = "".join(said).strip()
            if "OutOfMemoryError" in text:
                raise MemoryError(f"the device's memory is full: {text.splitlines()[-1]}")
            raise ScoringFailed(f"transformers could not score the candidate (exit code {code}):\n{text}")
        return Score(last["special"], last["general"])

    def _watch(self, process: subprocess.Popen[str], ended: threading.Event) -> None:
        """Ends the process when the job is asked to stop."""
        while not ended.wait(0.2):
            if self.stop.is_set():
                process.kill()
                return
