"""Where a cluster comes from. Above this, everything is the same."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from rich.console import Console

from e2e.cluster import addons
from e2e.cluster.addons import S3Access
from e2e.cluster.current import Current
from e2e.cluster.embedded import Embedded
from e2e.cluster.errors import ClusterError
from e2e.cluster.kind import Kind
from e2e.cluster.kubectl import Kubectl
from e2e.cluster.status import print_report
from e2e.cluster.system_images import SystemImage

NAMES = ("embedded", "kind", "current")


class Provider(Protocol):
    """Brings a Kubernetes up, gets images into it and takes it down."""

    name: str

    @property
    def kubeconfig(self) -> Path: ...

    def up(self) -> None:
        """Harmless when it is up. Raises ClusterError."""

    def down(self, *, purge: bool = False) -> None: ...

    def load_image(self, archive: Path) -> list[str]:
        """Make the images of an archive usable by pods; returns their names. Raises ClusterError."""

    def load_system_image(self, image: SystemImage) -> None: ...

    def logs(self, component: str) -> str: ...


def provider(name: str, console: Console) -> Provider:
    """The provider of that name. Raises ClusterError for a name that is none."""
    match name:
        case "embedded":
            return Embedded(console)
        case "kind":
            return Kind(console)
        case "current":
            return Current(console)
    raise ClusterError(f"unknown provider {name!r}: use one of {', '.join(NAMES)}")


@dataclass
class Cluster:
    """A Kubernetes with JobSet and an S3 in it: what demo and scenarios work with."""

    provider: Provider
    console: Console

    @property
    def kubeconfig(self) -> Path:
        return self.provider.kubeconfig

    @property
    def s3(self) -> S3Access:
        """Endpoint, bucket and credentials."""
        return addons.access(Kubectl(self.kubeconfig))

    def up(self, *, bare: bool = False) -> Cluster:
        """Bring it up, with JobSet and S3 unless `bare`. Harmless when it is up; repairs what is broken.

        Raises:
            ClusterError: what is wrong and what to do.
        """
        self.provider.up()
        if not bare:
            addons.install(self.provider, self.console)
        return self

    def down(self, *, purge: bool = False) -> None:
        self.provider.down(purge=purge)

    def load_image(self, archive: Path) -> list[str]:
        """Returns the names of the archive's images; quick when they are there already."""
        return self.provider.load_image(archive)

    def logs(self, component: str) -> str:
        return self.provider.logs(component)

    def report(self, console: Console) -> bool:
        """Print the state of everything; whether all of it is healthy."""
        return print_report(self.provider, console)


def cluster(name: str = "embedded", console: Console | None = None) -> Cluster:
    """The cluster of a provider, running or not. Raises ClusterError for an unknown name."""
    console = console or Console(stderr=True)
    return Cluster(provider(name, console), console)
