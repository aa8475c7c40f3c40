"""One embedded cluster for all scenarios. PINNACE_SCENARIO_KEEP=1 leaves it running at the end."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from pinnace.storage import Storage
from pinnace.tiny.model import write_tiny_model
from safetensors.torch import load_file, save_file

from e2e import install
from e2e.cluster import Cluster, system_images, traces
from e2e.cluster import cluster as embedded
from e2e.kube import Kubectl


@pytest.fixture(scope="session")
def machine_before() -> traces.Traces:
    """What the machine looks like without a cluster."""
    embedded().down()
    return traces.take()


@pytest.fixture(scope="session")
def cluster(machine_before: traces.Traces) -> Iterator[Cluster]:
    """The running cluster, with JobSet and S3. Scenarios keep to namespaces of their own."""
    running = embedded()
    running.up()
    running.load_image(system_images.busybox().archive)
    yield running
    if not os.environ.get("PINNACE_SCENARIO_KEEP"):
        running.down(purge=True)


@pytest.fixture
def kubectl(cluster: Cluster) -> Iterator[Kubectl]:
    """kubectl as administrator in a namespace of the test's own."""
    namespace = f"test-{secrets.token_hex(3)}"
    administrator = Kubectl(cluster.kubeconfig)
    administrator.run("create", "namespace", namespace)
    administrator.wait(
        "service account", lambda: Kubectl(cluster.kubeconfig, namespace).get("serviceaccount", "default"), 30, 0.1
    )
    yield Kubectl(cluster.kubeconfig, namespace)
    administrator.run("delete", "namespace", namespace, "--wait=false")


@dataclass(frozen=True)
class Platform:
    """The cluster with Pinnace on it: images, operator and two models in S3."""

    cluster: Cluster
    storage: Storage

    def namespace(self) -> Kubectl:
        """kubectl in a new namespace with storage."""
        return install.namespace(self.cluster, f"test-{secrets.token_hex(3)}")


@pytest.fixture(scope="session")
def platform(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Platform:
    """Installed as the demo does it. Models: `models/tiny-qwen3`, which the samples name, and `models/broken`."""
    install.load_images(cluster, ["operator", "trainer", "tools"], print)
    install.install_operator(cluster)
    s3 = cluster.s3
    storage = s3.storage()
    folder = tmp_path_factory.mktemp("model")
    write_tiny_model(folder)
    storage.publish(folder, f"s3://{s3.bucket}/models/tiny-qwen3")
    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"][0] = float("nan")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    storage.publish(folder, f"s3://{s3.bucket}/models/broken")
    return Platform(cluster, storage)
