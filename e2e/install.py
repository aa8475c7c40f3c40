"""Pinnace onto a cluster: images, chart, a namespace with storage. The demo and the scenarios come the same way."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from e2e.apiserver import BIN
from e2e.cluster import Cluster
from e2e.cluster.embedded import Embedded
from e2e.images.build import build, choose
from e2e.images.engine import STORAGE, Buildah, Say
from e2e.images.load import Containerd, load
from e2e.images.recipe import select
from e2e.images.store import Store
from e2e.kube import Kubectl

CHART = Path(__file__).resolve().parents[1] / "charts" / "pinnace"
SYSTEM_NAMESPACE = "pinnace-system"
STORAGE_SECRET = "pinnace-storage"


def build_images(names: list[str], say: Say) -> None:
    """Build what is out of date. Raises ImageError."""
    build(select(names), "cpu", choose("buildah"), say)


def load_images(cluster: Cluster, names: list[str], say: Say) -> None:
    """Hand built images to the cluster; on the embedded one only layers that it lacks are moved."""
    provider = cluster.provider
    for recipe in select(names):
        reference = recipe.reference("cpu")
        if isinstance(provider, Embedded):
            say(str(load(reference, Containerd(provider.run.socket, ctr=BIN / "ctr"), Store(STORAGE))))
            continue
        with TemporaryDirectory() as folder:
            archive = Path(folder) / "image.tar"
            Buildah().archive(reference, archive)
            cluster.load_image(archive)
            say(reference)


def install_operator(cluster: Cluster, *values: str) -> None:
    """`helm upgrade --install` of the chart with its defaults for images that are loaded, not pulled.

    Args:
        values: more of helm's `--set`, as `key=value`.
    """
    kubectl = Kubectl(cluster.kubeconfig, SYSTEM_NAMESPACE)
    # Helm never upgrades CRDs, and a cluster that was kept may have older ones. Helm then skips them: its own apply of
    # the same file can be a conflict (seen on RLRun's).
    kubectl.run("apply", "--server-side", "--force-conflicts", "-f", str(CHART / "crds"))
    settings = [f"--set={each}" for each in ("image.registry=localhost", *values)]
    kubectl.helm(
        "upgrade", "--install", "pinnace", str(CHART), "--create-namespace", "--skip-crds", "--wait", *settings
    )


def namespace(cluster: Cluster, name: str) -> Kubectl:
    """Make a namespace with storage and return a kubectl for it."""
    kubectl = Kubectl(cluster.kubeconfig, name)
    kubectl.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}, cluster.s3.secret(name))
    return kubectl
