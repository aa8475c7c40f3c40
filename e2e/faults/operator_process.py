"""The operator as a real process, with timings short enough for tests."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from e2e.apiserver import free_port
from e2e.faults.api import eventually

Start = Callable[..., "OperatorProcess"]
Record = Callable[..., None]

FAST = {
    "LEASE_DURATION": "3", "LEASE_MARGIN": "1.5", "LEASE_PERIOD": "0.4", "REQUEST_TIMEOUT": "1.4",
    "RESYNC_PERIOD": "3", "BACKOFF_BASE": "0.05", "BACKOFF_CAP": "1", "STATUS_INTERVAL": "0.2",
    "WATCH_SERVER_TIMEOUT": "60", "WATCH_INACTIVITY": "70", "LOG_FORMAT": "text", "BIND": "127.0.0.1",
    "STALLED_AFTER": "1000",
}  # fmt: skip


@dataclass
class OperatorProcess:
    """`pinnace-operator run`; `log` collects what all its runs printed."""

    kubeconfig: Path
    directory: Path
    name: str = "operator-a"
    namespace: str = "pinnace-system"
    settings: dict[str, str] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None
    http_port: int = field(default_factory=free_port)
    progress_port: int = field(default_factory=free_port)

    @property
    def log(self) -> Path:
        return self.directory / f"{self.name}.log"

    def start(self) -> None:
        settings = FAST | {
            "NAMESPACE": self.namespace, "POD_NAME": self.name, "HTTP_PORT": str(self.http_port),
            "PROGRESS_PORT": str(self.progress_port), "IMAGE_TAG": "test",
        } | self.settings  # fmt: skip
        environment = {
            **os.environ, **{f"PINNACE_OPERATOR_{name}": value for name, value in settings.items()},
            "KUBECONFIG": str(self.kubeconfig), **self.environment,
        }  # fmt: skip
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "pinnace_operator", "run"],
                env=environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip

    def wait_ready(self, timeout: float = 60) -> None:
        """Until all watches have listed (a standby is ready too)."""
        eventually(f"{self.name} is ready\n{self.tail()}", lambda: self.probe("/readyz") == 200, timeout)

    def wait_leads(self, timeout: float = 60) -> None:
        eventually(f"{self.name} leads\n{self.tail()}", lambda: self.metric("pinnace_leader") == 1, timeout)

    def probe(self, path: str) -> int:
        """The HTTP status of a probe; 0 when nobody answers."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.http_port}{path}", timeout=2) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            return 0

    def metrics(self) -> str:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.http_port}/metrics", timeout=2) as answer:
                text: str = answer.read().decode()
                return text
        except OSError:
            return ""

    def metric(self, name: str) -> float:
        """The sum of a metric over its labels."""
        lines = [line.rsplit(" ", 1) for line in self.metrics().splitlines() if not line.startswith("#")]
        return sum(float(value) for series, value in lines if series.split("{")[0] == name)

    def resident_mib(self) -> float:
        """Resident memory of the process."""
        status = Path(f"/proc/{self.process.pid}/status").read_text() if self.process else ""
        kib = next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS"))
        return int(kib) / 1024

    def signal(self, sig: int) -> None:
        if self.process and self.process.poll() is None:
            self.process.send_signal(sig)

    def kill(self) -> None:
        """kill -9, and wait until it is gone."""
        if self.process:
            self.signal(signal.SIGKILL)
            self.process.wait()

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        if not self.process:
            return 0
        self.signal(signal.SIGTERM)
        try:
            return self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    def tail(self, characters: int = 4000) -> str:
        return self.log.read_text(errors="replace")[-characters:] if self.log.exists() else ""


@contextmanager
def operator_process(kubeconfig: Path, directory: Path, **options: object) -> Iterator[OperatorProcess]:
    """A started operator, killed at the end of the block."""
    operator = OperatorProcess(kubeconfig, directory, **options)  # type: ignore[arg-type]  # the dataclass's own fields
    operator.start()
    try:
        yield operator
    finally:
        operator.kill()
