"""The real API server with our CRDs, and kubectl in a namespace of its own."""

from __future__ import annotations

import copy
import json
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from pinnace_operator.api.kinds import KINDS

from e2e.apiserver import BIN, ApiServer
from e2e.kube import CommandError, Kubectl
from tests.api.cases import Manifest

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def kubectl(apiserver: ApiServer) -> Kubectl:
    admin = Kubectl(apiserver.kubeconfig)
    for path in sorted((REPOSITORY / "crds").glob("*.yaml")):
        admin.run("apply", "--server-side", "-f", str(path))
    for kind in KINDS:
        # Served, and published for `kubectl explain`: both follow the creation of the CRD.
        admin.wait("the CRD is served", partial(_answers, admin, "get", kind.short_names[0]), timeout=60)
        admin.wait("the schema is published", partial(_answers, admin, "explain", f"{kind.plural}.spec"), timeout=60)
    admin.run("create", "namespace", "api-tests")
    return Kubectl(apiserver.kubeconfig, namespace="api-tests")


def _answers(kubectl: Kubectl, *arguments: str) -> bool:
    try:
        kubectl.run(*arguments)
    except CommandError:
        return False
    return True


@pytest.fixture(scope="session")
def message(kubectl: Kubectl) -> Callable[[Manifest], str]:
    """What a user of kubectl is told about a manifest in a server-side dry run; empty when it is accepted."""

    def send(manifest: Manifest) -> str:
        command = [BIN / "kubectl", "--namespace", kubectl.namespace, "create", "--dry-run=server", "-f", "-"]
        done = subprocess.run(
            command,
            env=kubectl.environment(),
            input=json.dumps(manifest),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return done.stderr.strip() if done.returncode else ""

    return send


def smallest() -> Manifest:
    """The smallest valid job."""
    return {
        "apiVersion": "pinnace.dev/v1alpha1",
        "kind": "SFTJob",
        "metadata": {"name": "job"},
        "spec": {
            "model": {"uri": "s3://pinnace/models/tiny"},
            "data": {"train": {"builtin": {"name": "arithmetic-tools"}}},
            "trainer": {"device": "cpu"},
        },
    }


def patched(manifest: Manifest, patch: dict[str, Any]) -> Manifest:
    """A copy with dotted paths set; the value `...` removes the field."""
    result = copy.deepcopy(manifest)
    for path, value in patch.items():
        *parents, last = path.split(".")
        node = result
        for parent in parents:
            node = node.setdefault(parent, {})
        if value is ...:
            del node[last]
        else:
            node[last] = value
    return result


@pytest.fixture
def job() -> Callable[[dict[str, Any]], Manifest]:
    """Makes the smallest valid job with a patch: dotted paths set, `...` removes."""
    return lambda patch: patched(smallest(), patch)


def smallest_sandbox() -> Manifest:
    """The smallest valid ToolSandbox."""
    return {
        "apiVersion": "pinnace.dev/v1alpha1",
        "kind": "ToolSandbox",
        "metadata": {"name": "tools"},
        "spec": {"servers": [{"name": "time", "catalogue": "time"}]},
    }


@pytest.fixture
def sandbox() -> Callable[[dict[str, Any]], Manifest]:
    """Makes the smallest valid ToolSandbox with a patch: dotted paths set, `...` removes."""
    return lambda patch: patched(smallest_sandbox(), patch)


def smallest_merge() -> Manifest:
    """The smallest valid MergeJob."""
    return {
        "apiVersion": "pinnace.dev/v1alpha1",
        "kind": "MergeJob",
        "metadata": {"name": "merge"},
        "spec": {
            "method": {"taskArithmetic": {}},
            "base": {"uri": "s3://pinnace/models/base"},
            "models": [{"name": "agent", "source": {"uri": "s3://pinnace/models/agent"}, "weight": "1"}],
        },
    }


@pytest.fixture
def merge() -> Callable[[dict[str, Any]], Manifest]:
    """Makes the smallest valid MergeJob with a patch: dotted paths set, `...` removes."""
    return lambda patch: patched(smallest_merge(), patch)
