"""kubectl and helm as a user would run them, for the demo and the scenarios."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from e2e.apiserver import BIN, free_port

Object = dict[str, Any]


class CommandError(RuntimeError):
    """kubectl or helm failed; the message is what it said."""


@dataclass(frozen=True)
class Kubectl:
    """The cluster behind one kubeconfig, in one namespace unless a call names another."""

    kubeconfig: Path
    namespace: str = "default"

    def run(self, *arguments: str, stdin: str | None = None, timeout: float = 120) -> str:
        """Run `kubectl …` and return its output.

        Raises:
            CommandError: it failed, with what it printed.
        """
        return self._command(BIN / "kubectl", "--namespace", self.namespace, *arguments, stdin=stdin, timeout=timeout)

    def helm(self, *arguments: str, timeout: float = 300) -> str:
        return self._command(BIN / "helm", "--namespace", self.namespace, *arguments, stdin=None, timeout=timeout)

    def apply(self, *manifests: Object) -> None:
        # JSON, not YAML: PyYAML writes the string "2e-5" without quotes, which Kubernetes reads as a number.
        bundle = {"apiVersion": "v1", "kind": "List", "items": list(manifests)}
        self.run("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=json.dumps(bundle))

    def get(self, kind: str, name: str) -> Object | None:
        """The object, or None when it does not exist."""
        found = self.run("get", kind, name, "-o", "json", "--ignore-not-found")
        return json.loads(found) if found.strip() else None

    def list(self, kind: str, selector: str = "") -> list[Object]:
        items: list[Object] = json.loads(self.run("get", kind, "-o", "json", "-l", selector))["items"]
        return items

    def wait(self, what: str, condition: Callable[[], Any], timeout: float, poll: float = 0.5) -> Any:
        """Call `condition` until it returns something true and return that.

        Raises:
            TimeoutError: `what` did not happen in `timeout` seconds.
        """
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            result = condition()
            if result:
                return result
            time.sleep(poll)
        raise TimeoutError(f"{what}: not within {timeout:.0f} s")

    def environment(self) -> dict[str, str]:
        return {**os.environ, "KUBECONFIG": str(self.kubeconfig)}

    @contextmanager
    def port_forward(self, target: str, port: int) -> Iterator[str]:
        """`kubectl port-forward` for as long as the block runs; yields `host:port` on loopback."""
        local = free_port()
        command: list[str | Path] = [
            BIN / "kubectl",
            "--namespace",
            self.namespace,
            "port-forward",
            target,
            f"{local}:{port}",
        ]
        process = subprocess.Popen(
            command, env=self.environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            self.wait(f"port-forward to {target}", lambda: _accepts(local), timeout=30, poll=0.1)
            yield f"127.0.0.1:{local}"
        finally:
            process.terminate()
            process.wait()

    def _command(self, program: Path, *arguments: str, stdin: str | None, timeout: float) -> str:
        done = subprocess.run(
            [program, *arguments],
            check=False,
            env=self.environment(),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        if done.returncode:
            raise CommandError(f"{program.name} {' '.join(arguments)}: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout


def _accepts(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def condition(resource: Object, type_: str) -> Object:
    """The condition of that type, or an empty one."""
    conditions: list[Object] = resource.get("status", {}).get("conditions", [])
    return next((each for each in conditions if each["type"] == type_), {})


def ended(job: Object) -> str:
    """How a job has ended, `Complete` or `Failed`; empty while it has not."""
    types = (type_ for type_ in ("Complete", "Failed") if condition(job, type_).get("status") == "True")
    return next(types, "")
