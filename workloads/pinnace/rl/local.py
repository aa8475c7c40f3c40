"""`pinnace rl run`: every process of a run on this machine, started, watched, restarted, ended."""

from __future__ import annotations

import logging
import os
import secrets
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from types import FrameType

from pinnace_operator.api.outcome import PERMANENT_EXIT_CODES, ExitCode

from .config import RunConfig
from .control.wire import KEY

log = logging.getLogger(__name__)
MAX_RESTARTS = 5


class LocalRun:
    """The processes by name, each a `pinnace rl …` command; their output goes to `logs/` in the run's folder."""

    def __init__(self, path: Path, config: RunConfig) -> None:
        share = -(-config.schedule.concurrency // config.samplers)
        file = str(path)
        self._commands: dict[str, list[str]] = {
            "coordinator": ["coordinator", file],
            "proxy": ["proxy", file],
            **{
                f"server-{number}": ["serve", str(config.model), "--url", one.url, "--seed", str(config.seed + number)]
                for number, one in enumerate(config.servers)
                if one.kind == "reference"
            },
            **{
                f"sampler-{number}": ["sample", file, "--slots", str(share), "--name", f"sampler-{number}"]
                for number in range(config.samplers)
            },
            "trainer": ["train", file],
        }
        self._logs = config.folder / "logs"
        self._environment = os.environ | {KEY: os.environ.get(KEY) or secrets.token_urlsafe(24)}
        self._environment.setdefault("PINNACE_TERMINATION_LOG", str(config.folder / "outcome.json"))
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.restarts: Counter[str] = Counter()
        self._stopping = False

    def run(self) -> int:
        """Until the trainer is done; returns its exit code. SIGTERM lets it save a checkpoint first."""
        signal.signal(signal.SIGTERM, self._stop)
        try:
            for name in self._commands:
                self._start(name)
            while True:
                time.sleep(0.2)
                if (code := self._look()) is not None:
                    return code
        finally:
            self._end()

    def _look(self) -> int | None:
        """Restarts what has died; returns the run's exit code when that is known."""
        for name, process in list(self.processes.items()):
            code = process.poll()
            if code is None:
                continue
            if name == "trainer" and (code == 0 or self._stopping or code in PERMANENT_EXIT_CODES):
                return code if code >= 0 else 128 - code
            if code in PERMANENT_EXIT_CODES:
                log.error("%s ended with exit code %d: see %s", name, code, self._logs / f"{name}.log")
                return code
            if code == 0 and name.startswith("sampler"):
                del self.processes[name]  # the run is finished
                continue
            self.restarts[name] += 1
            if self.restarts[name] > MAX_RESTARTS and code != ExitCode.CHECKPOINTED:
                log.error("%s died %d times, last with exit code %d", name, self.restarts[name], code)
                return 1
            log.warning("%s ended with exit code %d and is started again", name, code)
            self._start(name)
        return None

    def _start(self, name: str) -> None:
        self._logs.mkdir(parents=True, exist_ok=True)
        with (self._logs / f"{name}.log").open("ab") as file:
            self.processes[name] = subprocess.Popen(
                [sys.executable, "-m", "pinnace", "rl", *self._commands[name]],
                env=self._env(name),
                stdout=file,
                stderr=subprocess.STDOUT,
            )

    def _env(self, name: str) -> Mapping[str, str]:
        """Only the trainer's end is the run's end."""
        if name == "trainer":
            return self._environment
        return self._environment | {"PINNACE_TERMINATION_LOG": str(self._logs / f"{name}.outcome.json")}

    def _stop(self, _signal: int, _frame: FrameType | None) -> None:
        self._stopping = True
        self.processes["trainer"].terminate()

    def _end(self) -> None:
        for process in self.processes.values():
            if process.poll() is None:
                process.terminate()
        for process in self.processes.values():
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
