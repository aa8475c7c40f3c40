"""A cluster in Docker by kind, for machines that have both."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from e2e.cluster import build, containerd, versions
from e2e.cluster.errors import ClusterError
from e2e.cluster.paths import CACHE
from e2e.cluster.system_images import SystemImage

NAME = "pinnace"


def create_command(kubeconfig: Path) -> list[str]:
    image = f"--image=kindest/node:{versions.KUBERNETES}"
    return ["kind", "create", "cluster", f"--name={NAME}", image, f"--kubeconfig={kubeconfig}", "--wait=120s"]


def delete_command(kubeconfig: Path) -> list[str]:
    return ["kind", "delete", "cluster", f"--name={NAME}", f"--kubeconfig={kubeconfig}"]


def load_command(archive: Path) -> list[str]:
    return ["kind", "load", "image-archive", str(archive), f"--name={NAME}"]


def export_command(kubeconfig: Path) -> list[str]:
    return ["kind", "export", "kubeconfig", f"--name={NAME}", f"--kubeconfig={kubeconfig}"]


@dataclass
class Kind:
    console: Console
    name: str = "kind"

    @property
    def kubeconfig(self) -> Path:
        return CACHE / "kind.kubeconfig"

    def up(self) -> None:
        self._check()
        build.ensure(self.console)
        if NAME in self._run(["kind", "get", "clusters"]).split():
            self._run(export_command(self.kubeconfig))
        else:
            self._run(create_command(self.kubeconfig))

    def down(self, *, purge: bool = False) -> None:  # noqa: ARG002 - as the protocol has it
        """kind keeps no state, so `purge` makes no difference."""
        self._check()
        self._run(delete_command(self.kubeconfig))

    def load_image(self, archive: Path) -> list[str]:
        images = containerd.inspect(archive)
        self._run(load_command(archive))
        return [name for image in images for name in image.references]

    def load_system_image(self, image: SystemImage) -> None:
        self.load_image(image.archive)

    def logs(self, component: str) -> str:
        return self._run(["docker", "exec", f"{NAME}-control-plane", "journalctl", "--no-pager", f"--unit={component}"])

    def _check(self) -> None:
        if (
            not shutil.which("docker")
            or subprocess.run(["docker", "info"], capture_output=True, check=False).returncode
        ):
            raise ClusterError(
                "kind needs a Docker engine that runs: start Docker, or use `--provider embedded`, which needs none"
            )
        if not shutil.which("kind"):
            raise ClusterError("kind is not installed: put it on PATH, or use `--provider embedded`")

    def _run(self, command: list[str]) -> str:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise ClusterError(f"{' '.join(command)}: {done.stderr.strip()[-2000:]}")
        return done.stdout
