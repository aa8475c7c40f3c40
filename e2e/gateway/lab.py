"""Starts and ends gateways and tool servers."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, TypeVar

import httpx

P = TypeVar("P", bound="Process")
HERE = Path(__file__).parent
TOKEN = "tenant-token"
AGENTS_KEY = "agents-key"


def eventually(what: str, check: Callable[[], Any], *, within: float = 20) -> Any:
    """The first truthy value of `check`; `AssertionError` after `within` seconds."""
    end = time.monotonic() + within
    while True:
        try:
            if found := check():
                return found
        except (httpx.HTTPError, OSError):
            pass
        if time.monotonic() > end:
            raise AssertionError(f"not within {within} s: {what}")
        time.sleep(0.02)


@dataclass
class Process:
    """A child process that writes its port into a file."""

    command: list[str]
    port_file: Path
    log: Path
    env: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.port_file.unlink(missing_ok=True)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env={**os.environ, **self.env}
            )

    @property
    def port(self) -> int:
        def read() -> int:
            assert self.process is not None
            if self.process.poll() is not None:
                raise RuntimeError(f"{self.command} ended:\n{self.log.read_text()[-3000:]}")
            return int(self.port_file.read_text())

        return int(eventually(f"{self.command} listens", read, within=60))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def send(self, sign: int) -> None:
        assert self.process is not None
        self.process.send_signal(sign)

    def stop(self, sign: int = signal.SIGKILL) -> int:
        if self.process is None:
            return 0
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.send_signal(sign)
        code = self.process.wait(timeout=60)
        self.process = None
        return code


@dataclass
class Backend(Process):
    """A tool server (`backend.py`); `notes` is where it writes what ran."""

    notes: Path = Path()
    name: str = ""

    def ran(self, tool: str) -> list[str]:
        """What the tool noted, one entry each time that it ran; all servers of the folder together."""
        log = self.notes / f"{tool}.log"
        return log.read_text().splitlines() if log.exists() else []


class Lab:
    """Starts processes in a folder of its own and ends them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._started: list[Process] = []

    def backend(self, name: str = "backend", *, extra: str = "", port: int = 0, flag: str = "") -> Backend:
        """A running tool server."""
        mark = secrets.token_hex(4)
        port_file, notes = self.folder / f"{name}-{mark}.port", self.folder / "notes"
        notes.mkdir(exist_ok=True)
        options = ["--name", name, *(["--extra", extra] if extra else []), "--port", str(port)]
        command = [sys.executable, str(HERE / "backend.py"), str(port_file), str(notes), *options]
        if flag:
            command.append(flag)
        backend = Backend(command, port_file, self.folder / f"{name}-{mark}.log", notes=notes, name=name)
        return self.start(backend)

    def everything(self) -> Process:
        """The conformance suite's server (`everything.py`)."""
        port_file = self.folder / "everything.port"
        command = [sys.executable, str(HERE / "everything.py"), str(port_file)]
        return self.start(Process(command, port_file, self.folder / "everything.log"))

    def start(self, process: P) -> P:
        self._started.append(process)
        process.start()
        return process

    def gateway(self, config: dict[str, Any], *, wait: bool = True, configmap: str = "", **env: str) -> Gateway:
        """A running gateway with this configuration (from a file, unless a ConfigMap is named)."""
        mark = secrets.token_hex(4)
        tokens = self.folder / "tokens"
        tokens.mkdir(exist_ok=True)
        (tokens / "team").write_text(TOKEN)
        (self.folder / "key").write_text(AGENTS_KEY)
        file = self.folder / f"gateway-{mark}.json"
        port_file = self.folder / f"gateway-{mark}.port"
        audit = self.folder / f"audit-{mark}.jsonl"
        where = ["--configmap", configmap] if configmap else ["--config", str(file)]
        command = [
            sys.executable, "-c", "from pinnace.cli import main; main()", "tools", "gateway", *where, "--host",
            "127.0.0.1", "--port", "0", "--tokens", str(tokens), "--key", str(self.folder / "key"), "--audit",
            str(audit), "--port-file", str(port_file),
        ]  # fmt: skip
        gateway = Gateway(command, port_file, self.folder / f"gateway-{mark}.log", env, file=file, audit=audit)
        gateway.configure(config)
        self.start(gateway)
        if wait:
            gateway.wait_ready()
        return gateway

    def stop(self) -> None:
        for process in reversed(self._started):
            process.stop()


@dataclass
class Gateway(Process):
    """`pinnace tools gateway`, configured by a file."""

    file: Path = Path()
    audit: Path = Path()
    token: str = TOKEN

    def configure(self, config: dict[str, Any]) -> None:
        """Write the document, as an editor would: in one step."""
        partial = self.file.with_suffix(".new")
        partial.write_text(json.dumps({"version": 1, **config}))
        partial.rename(self.file)

    @property
    def mcp(self) -> str:
        return f"{self.url}/mcp"

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}

    def wait_ready(self) -> None:
        eventually("the gateway is ready", lambda: self.get("/readyz").status_code == 200, within=60)

    @cached_property
    def http(self) -> httpx.Client:
        """One client for all requests: each new one would read all certificates of the system."""
        return httpx.Client(trust_env=False, timeout=120, limits=httpx.Limits(max_connections=256))

    def get(self, path: str) -> httpx.Response:
        return self.http.get(self.url + path, headers=self.headers)

    def post(self, path: str, body: Any = None, *, token: str | None = None, **headers: str) -> httpx.Response:
        sent = {"Authorization": f"Bearer {token or self.token}", **headers}
        return self.http.post(self.url + path, json=body or {}, headers=sent)

    def call(self, name: str, arguments: dict[str, Any] | None = None, *, token: str | None = None, **more: Any) -> Any:
        """`POST /call`, parsed."""
        return self.post("/call", {"name": name, "arguments": arguments or {}, **more}, token=token).json()

    def tools(self) -> list[str]:
        return [each["function"]["name"] for each in self.get("/tools").json()["tools"]]

    def wait_tools(self, *names: str) -> None:
        eventually(f"tools {names}", lambda: set(names) <= set(self.tools()))

    def metric(self, name: str, **labels: str) -> float:
        """The value of one series, 0 when there is none."""
        wanted = [f'{key}="{value}"' for key, value in labels.items()]
        for line in self.get("/metrics").text.splitlines():
            if line.startswith((f"{name} ", f"{name}{{")) and all(each in line for each in wanted):
                return float(line.rpartition(" ")[2])
        return 0.0


class Address(Protocol):
    """Something that listens."""

    @property
    def url(self) -> str: ...


def server(name: str, *backends: Address, **more: Any) -> dict[str, Any]:
    """One server with one version that has these replicas."""
    return {"name": name, "versions": [{"name": "v1", "endpoints": [each.url for each in backends]}], **more}


@contextmanager
def lab(folder: Path) -> Iterator[Lab]:
    """A `Lab` whose processes are ended."""
    made = Lab(folder)
    try:
        yield made
    finally:
        made.stop()
