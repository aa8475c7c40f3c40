"""One embedded cluster for all scenarios. PINNACE_SCENARIO_KEEP=1 leaves it running at the end."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator

import pytest

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
