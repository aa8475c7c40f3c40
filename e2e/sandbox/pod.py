"""A session's pod without a cluster: agent and executor in two containers, two uids, one network namespace (`lo`)."""

from __future__ import annotations

import compileall
import ctypes
import functools
import hashlib
import http.client
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import sysconfig
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from pinnace.tools.outcome import ToolResult

from e2e.sandbox import cgroup

AGENT, SANDBOX = 65532, 65533
KEY = "key-of-the-gateway-c0ffee"
_HERE = Path(__file__).parent
_REPOSITORY = _HERE.parent.parent
_numbers = itertools.count(1)
_libc = ctypes.CDLL(None, use_errno=True)
_CLONE_NEWNET = 0x40000000


class _Connection(http.client.HTTPConnection):
    """From inside of the pod's network namespace, as kubelet and gateway reach it by routes that this pod has not."""

    def __init__(self, namespace: int, port: int, timeout: float) -> None:
        super().__init__("127.0.0.1", port, timeout=timeout)
        self._namespace = namespace

    def connect(self) -> None:
        self.sock = connect_inside(self._namespace, self.port, self.timeout)


def connect_inside(namespace: int, port: int, timeout: float | None = None) -> socket.socket:
    """A connection to a port of a network namespace's loopback."""
    ours = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        if _libc.setns(namespace, _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns")
        try:
            made = socket.create_connection(("127.0.0.1", port), timeout)
        finally:
            _libc.setns(ours, _CLONE_NEWNET)
    finally:
        os.close(ours)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return made


@dataclass
class Container:
    """Starts again when it ends, as kubelet lets it."""

    start: Callable[[], subprocess.Popen[bytes]]
    starts: int = 0
    process: subprocess.Popen[bytes] | None = None
    stopped: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def run(self) -> None:
        """In a thread of its own."""
        while True:
            with self._lock:
                if self.stopped:
                    return
                self.starts += 1
                self.process = self.start()
                while self.process.poll() is None and not _children(self.process.pid):
                    time.sleep(0.002)
            self.process.wait()

    def stop(self) -> None:
        """For good."""
        with self._lock:
            self.stopped = True
            # Its PID 1, not unshare: the signal of --kill-child is forgotten when PID 1 changes its uid.
            with suppress(OSError, IndexError):
                os.kill(self.pid, signal.SIGKILL)

    @property
    def pid(self) -> int:
        """Of its PID 1, seen from outside."""
        assert self.process is not None
        return _children(self.process.pid)[0]


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


class Pod:
    """What a gateway has of it: the agent's port and the key."""

    def __init__(self, name: str, namespace: int, holder: int, folder: Path) -> None:
        self.name, self.namespace, self.holder, self.folder = name, namespace, holder, folder
        self.containers: dict[str, Container] = {}
        self._local = threading.local()
        self.lease: str | None = None

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        key: str = KEY,
        session: str | None = None,
        timeout: float = 60,
        headers: dict[str, str] | None = None,
    ) -> tuple[int, Any]:
        """(status, JSON or bytes)."""
        connection: _Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._local.connection = _Connection(self.namespace, 8081, timeout)
        given = {"X-Pinnace-Key": key, "Content-Type": "application/json", **(headers or {})}
        if session is not None:
            given["X-Pinnace-Session"] = session
        try:
            connection.request(method, path, None if body is None else json.dumps(body), given)
            response = connection.getresponse()
            data = response.read()
        except (OSError, http.client.HTTPException):
            connection.close()
            self._local.connection = None
            raise
        if response.headers.get_content_type() == "application/json":
            return response.status, json.loads(data)
        return response.status, data

    def wait(self, state: str, seconds: float = 30) -> dict[str, Any]:
        """Until the agent says so."""
        deadline = time.monotonic() + seconds
        seen: Any = None
        while time.monotonic() < deadline:
            try:
                _, seen = self.request("GET", "/lease")
            except OSError as error:
                seen = error
            else:
                if seen.get("state") == state:
                    return dict(seen)
            time.sleep(0.02)
        raise TimeoutError(f"pod {self.name} is not {state}: {seen}; {self.log()}")

    def arm(
        self,
        *,
        seconds: float = 600,
        env: dict[str, str] | None = None,
        labels: dict[str, str] | None = None,
        **limits: Any,
    ) -> dict[str, Any]:
        """Takes a lease; returns its description. The HTTP status must be 200."""
        self.lease = f"lease-{next(_numbers)}"
        body = {
            "id": self.lease,
            "tokenSha256": hashlib.sha256(self.lease.encode()).hexdigest(),
            "env": env or {},
            "limits": limits,
            "expiresAt": time.time() + seconds,
            "idleSeconds": 600,
            "labels": labels or {},
        }
        status, answer = self.request("POST", "/lease", body)
        assert status == 200, answer
        return dict(answer)

    def release(self, recycle: str = "Restart") -> tuple[int, Any]:
        """Ends the lease."""
        return self.request("DELETE", f"/lease?recycle={recycle}")

    def tool(self, name: str, *, session: str | None = None, deadline: float = 60, **arguments: Any) -> ToolResult:
        """Calls a session tool; `deadline` is in seconds."""
        message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": name, "arguments": arguments}}
        status, answer = self.request(
            "POST",
            "/mcp",
            message,
            session=session or self.lease or "",
            headers={"X-Pinnace-Deadline-Ms": str(int(deadline * 1000))},
        )
        assert status == 200, answer
        return ToolResult.from_mcp(answer["result"])

    def log(self) -> str:
        """What both containers wrote."""
        return "\n".join(f"{name}: {(self.folder / f'{name}.log').read_text()[-3000:]}" for name in self.containers)


@functools.cache
def _compiled() -> None:
    """The image has bytecode; a container that can't write would compile again with every start."""
    compileall.compile_dir(_REPOSITORY / "workloads" / "pinnace" / "tools", quiet=2)


@contextmanager
def pod(
    folder: Path,
    *,
    workspace: str = "size=8m,nr_inodes=4000",
    agent: list[str] | None = None,
    executor: list[str] | None = None,
    programs: Path | None = None,
) -> Iterator[Pod]:
    """A running pod; its processes, mounts, namespaces and control groups are gone afterwards.

    Args:
        folder: for its files.
        workspace: options of the tmpfs that is the workspace.
        agent: more arguments of the agent.
        executor: more arguments of the executor.
        programs: a folder that comes first in the containers' PATH.
    """
    _compiled()
    name = f"pinnace-test-{os.getpid()}-{next(_numbers)}"
    for part in ("workspace", "sockets", "secrets", "root-agent", "root-sandbox"):
        (folder / part).mkdir(parents=True)
    (folder / "secrets" / "key").write_text(KEY + "\n")
    (folder / "secrets" / "key").chmod(0o440)
    os.chown(folder / "secrets" / "key", 0, AGENT)
    os.chown(folder / "sockets", AGENT, AGENT)
    script = (
        f"mount --make-rprivate / && mount -t tmpfs -o mode=777,{workspace} tmpfs '{folder}/workspace' "
        "&& ip link set lo up && echo up && exec sleep infinity"
    )
    holder = subprocess.Popen(["unshare", "--mount", "--net", "sh", "-c", script], stdout=subprocess.PIPE)
    groups = []
    made: Pod | None = None
    threads = []
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"up\n"
        namespace = os.open(f"/proc/{holder.pid}/ns/net", os.O_RDONLY)
        made = Pod(name, namespace, holder.pid, folder)
        for container, uid, arguments in (
            (
                "agent",
                AGENT,
                ["pinnace.tools.sandbox.cli", "--key", "/secrets/key", "--executor-uid", str(SANDBOX), *(agent or [])],
            ),
            ("sandbox", SANDBOX, ["pinnace.tools.executor.cli", "--scratch", "/scratch", *(executor or [])]),
        ):
            group = cgroup.create(f"{name}-{container}", pids=160, memory=400 << 20)
            groups.append(group)
            command = _command(made, container, uid, group, arguments, programs)
            log = (folder / f"{container}.log").open("ab")
            running = Container(functools.partial(_popen, command, log))
            made.containers[container] = running
            threads.append(threading.Thread(target=running.run, daemon=True))
            threads[-1].start()
        yield made
    finally:
        if made is not None:
            for running in made.containers.values():
                running.stop()
            os.close(made.namespace)
        for thread in threads:
            thread.join(10)
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        for group in groups:
            group.remove()


def _popen(command: list[str], log: IO[bytes]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)


def _command(
    pod: Pod, container: str, uid: int, group: cgroup.Cgroup, arguments: list[str], programs: Path | None
) -> list[str]:
    holder, folder = pod.holder, pod.folder
    readable = [sysconfig.get_config_var("prefix"), sys.prefix, _REPOSITORY / "workloads", _REPOSITORY / "operator"]
    readable += [programs] if programs else []
    untrusted = container == "sandbox"
    return [
        *("nsenter", f"--target={holder}", "--mount", "--net"),
        *("unshare", "--mount", "--pid", "--ipc", "--uts", "--fork"),
        *("sh", str(_HERE / "container.sh"), str(folder / f"root-{container}"), str(uid)),
        str(folder / "workspace") if untrusted else "-",
        str(folder / "sockets"),
        "-" if untrusted else str(folder / "secrets"),
        " ".join(group.procs),
        " ".join(str(path) for path in dict.fromkeys(readable)),
        f"PATH={programs}:/usr/bin:/bin" if programs else "PATH=/usr/bin:/bin",
        *(sys.executable, "-m", *arguments),
    ]
