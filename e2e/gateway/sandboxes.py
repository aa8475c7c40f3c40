"""Session pods without a cluster: the real agent and the real executor of each, as two processes of this machine."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from e2e.apiserver import free_ports
from e2e.gateway.lab import AGENTS_KEY, Gateway, Lab, Process, eventually

# One client for all: each new one would read all certificates of the system, and a core would do nothing else.
_http = httpx.Client(headers={"X-Pinnace-Key": AGENTS_KEY}, verify=False, trust_env=False, timeout=60)  # noqa: S501 - loopback, no TLS


@dataclass(frozen=True)
class Sandbox:
    """One pod."""

    url: str
    agent: Process
    executor: Process

    @property
    def state(self) -> str:
        return str(_http.get(f"{self.url}/lease").json()["state"])


@dataclass(frozen=True)
class Sandboxes:
    """A warm pool. Gateways may be given a part of it, as endpoints."""

    pods: Sequence[Sandbox]

    def __getitem__(self, part: slice) -> Sandboxes:
        return Sandboxes(self.pods[part])

    @property
    def urls(self) -> list[str]:
        return [pod.url for pod in self.pods]

    def states(self) -> list[str]:
        return [pod.state for pod in self.pods]

    def free(self) -> None:
        """Ends every lease, whoever has it."""
        for pod in self.pods:
            _http.delete(f"{pod.url}/lease")
        eventually("all are free", lambda: set(self.states()) == {"free"}, within=60)


def start(lab: Lab, count: int, *, servers: str = "python,shell,files") -> Sandboxes:
    """`count` running sandboxes with the key that the laboratory's gateways have, each free."""
    pods = Sandboxes([_pod(lab, port, servers) for port in free_ports(count)])
    eventually("all are free", lambda: set(pods.states()) == {"free"}, within=120)
    return pods


def _pod(lab: Lab, port: int, servers: str) -> Sandbox:
    folder = lab.folder / f"sandbox-{port}"
    for part in ("workspace", "scratch"):
        (folder / part).mkdir(parents=True)
    (lab.folder / "key").write_text(AGENTS_KEY)
    hosted = ",".join(each for each in servers.split(",") if each not in {"python", "shell", "files"})
    socket = folder / "socket"

    def process(name: str, *options: str) -> Process:
        command = [sys.executable, "-m", f"pinnace.tools.{name}.cli", "--socket", str(socket), *options]
        return lab.start(Process(command, folder / "no-port", folder / f"{name}.log"))

    return Sandbox(
        f"http://127.0.0.1:{port}",
        process(
            "sandbox", "--key", str(lab.folder / "key"), "--host", "127.0.0.1", "--port", str(port),
            "--servers", servers,
        ),
        process(
            "executor", "--workspace", str(folder / "workspace"), "--scratch", str(folder / "scratch"),
            "--uid", str(os.geteuid()), "--grace", "0.3", "--servers", hosted,
        ),
    )  # fmt: skip


def configuration(pool: Sandboxes, **sessions: Any) -> dict[str, Any]:
    """gateway.json of a gateway before these sandboxes alone: there is nobody who could add more."""
    servers = ["python", "shell", "files"]
    return {"sessions": {"endpoints": pool.urls, "max": len(pool.pods), "servers": servers, **sessions}}


def ready(gateway: Gateway, free: int) -> Gateway:
    """Once it knows of so many free sandboxes."""
    gateway.wait_tools("write_file")
    eventually(f"{free} are free", lambda: gateway.metric("pinnace_tools_sessions", state="free") == free)
    return gateway


def lease(gateway: Gateway, **more: Any) -> dict[str, str]:
    """A new one: id, token, expiresAt."""
    answer = gateway.post("/sessions", more)
    assert answer.status_code == 201, answer.text
    found: dict[str, str] = answer.json()["sessions"][0]
    return found


def shell(gateway: Gateway, held: dict[str, str], command: str) -> str:
    """What the command printed; a call that is not `ok` fails the test, but for the tool's own word."""
    answer = gateway.call("shell", {"command": command}, token=held["token"])
    assert answer["outcome"] in {"ok", "tool_error"}, answer
    return str(answer["content"][0]["text"])


def files(gateway: Gateway, held: dict[str, str]) -> str:
    return shell(gateway, held, "ls; echo .")


def end(gateway: Gateway, held: dict[str, str]) -> int:
    """The HTTP status of giving it back."""
    return gateway.http.delete(f"{gateway.url}/sessions/{held['id']}", headers=gateway.headers).status_code
