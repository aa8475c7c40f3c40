"""The cluster that your kubeconfig points to. It is never created, taken down, nor given images by us."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from e2e.cluster import build
from e2e.cluster.errors import ClusterError
from e2e.cluster.kubectl import Kubectl
from e2e.cluster.system_images import SystemImage


@dataclass
class Current:
    console: Console
    name: str = "current"

    @property
    def kubeconfig(self) -> Path:
        """The first file of KUBECONFIG, or ~/.kube/config."""
        first = os.environ.get("KUBECONFIG", "").split(os.pathsep)[0]
        return Path(first) if first else Path.home() / ".kube" / "config"

    def up(self) -> None:
        if not self.kubeconfig.is_file():
            raise ClusterError(f"no kubeconfig at {self.kubeconfig}: set KUBECONFIG, or use `--provider embedded`")
        build.ensure(self.console)
        try:
            Kubectl(self.kubeconfig)("get", "--raw", "/readyz")
        except ClusterError as error:
            raise ClusterError(f"the cluster of {self.kubeconfig} does not answer: {error}") from error

    def down(self, *, purge: bool = False) -> None:  # noqa: ARG002 - as the protocol has it
        raise ClusterError(
            "the cluster of your kubeconfig is not ours to take down: `helm uninstall` removes what was installed"
        )

    def load_image(self, archive: Path) -> list[str]:
        raise ClusterError(
            f"{archive} cannot be loaded into a foreign cluster: push it to a registry that its nodes reach"
        )

    def load_system_image(self, image: SystemImage) -> None:
        raise ClusterError(
            f"{image.reference} cannot be loaded into a foreign cluster: install JobSet there yourself and bring "
            "your own S3 (`pinnace cluster up --provider current --bare`)"
        )

    def logs(self, component: str) -> str:
        raise ClusterError(f"the log of {component} is your cluster's own: ask its provider")
