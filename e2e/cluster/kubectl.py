"""kubectl and helm with one kubeconfig."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from string import Template

from e2e.cluster.errors import ClusterError
from e2e.cluster.paths import BIN

MANIFESTS = Path(__file__).parent / "manifests"


@dataclass(frozen=True)
class Kubectl:
    kubeconfig: Path

    def __call__(self, *arguments: str, stdin: str | None = None, program: str = "kubectl") -> str:
        """Run it and return what it printed.

        Raises:
            ClusterError: it failed; the message is what it said.
        """
        environment = {**os.environ, "KUBECONFIG": str(self.kubeconfig)}
        command = [str(BIN / program), *arguments]
        done = subprocess.run(command, env=environment, input=stdin, capture_output=True, text=True, check=False)
        if done.returncode:
            raise ClusterError(f"{program} {' '.join(arguments)}: {done.stderr.strip()[-2000:]}")
        return done.stdout

    def apply(self, manifest: str, **values: str) -> None:
        """Apply one of our manifests with `${name}` replaced."""
        text = Template((MANIFESTS / manifest).read_text()).substitute(values)
        self("apply", "--server-side", "--force-conflicts", "--field-manager=pinnace-cluster", "-f", "-", stdin=text)

    def image(self, namespace: str, workload: str) -> str:
        """The image of a workload's first container, or an empty string when there is no such workload."""
        path = "jsonpath={.spec.template.spec.containers[0].image}"
        return self("--namespace", namespace, "get", workload, "--ignore-not-found", "-o", path)

    def rolled_out(self, namespace: str, workload: str, timeout: int = 120) -> None:
        self("--namespace", namespace, "rollout", "status", workload, f"--timeout={timeout}s")


def wait_until(what: str, problem: Callable[[], str | None], timeout: float, poll: float = 0.1) -> None:
    """Until `problem()` is None.

    Raises:
        ClusterError: it still says something after `timeout` seconds; that is the message.
    """
    deadline = time.monotonic() + timeout
    while (text := problem()) is not None:
        if time.monotonic() > deadline:
            raise ClusterError(f"{what} not within {timeout:.0f} s: {text}")
        time.sleep(poll)
