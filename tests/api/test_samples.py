"""Every sample works as it stands, and Python reads it exactly as the API server does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from pinnace_operator.api.kinds import KINDS

from e2e.kube import Kubectl

SAMPLES = Path(__file__).parents[2] / "crds" / "samples"
MODELS: dict[str, Any] = {kind.name: kind.model for kind in KINDS}
DOCUMENTS = [
    pytest.param(manifest, id=f"{path.stem}-{manifest['metadata']['name']}")
    for path in sorted(SAMPLES.glob("*.yaml"))
    for manifest in yaml.safe_load_all(path.read_text())
    if manifest["kind"] in MODELS
]


def test_there_are_samples_for_the_documented_uses() -> None:
    names = {path.stem for path in SAMPLES.glob("*.yaml")}
    assert names >= {"sft-demo", "sft-two-pods", "sft-lora", "sft-from-s3-sharded", "sft-qwen3-4b", "sft-pipeline"}
    assert names >= {"merge-demo", "merge-linear", "merge-sweep", "merge-sweep-eval", "merge-qwen3-4b"}
    assert names >= {"rl-demo", "rl-qwen3-4b", "rl-own-agent"}
    assert names >= {"toolsandbox-small", "toolsandbox-demo", "toolsandbox-canary"}
    assert names >= {"eval-demo", "eval-own-endpoint", "eval-qwen3-4b"}


@pytest.mark.parametrize("path", sorted(SAMPLES.glob("*.yaml")), ids=lambda path: path.stem)
def test_kubectl_applies_a_sample(kubectl: Kubectl, path: Path) -> None:
    kubectl.run("apply", "--dry-run=server", "-f", str(path))
    kubectl.run("apply", "--server-side", "-f", str(path))
    kubectl.run("delete", "-f", str(path))


@pytest.mark.parametrize("manifest", DOCUMENTS)
def test_python_fills_in_the_defaults_that_the_api_server_does(kubectl: Kubectl, manifest: dict[str, Any]) -> None:
    stored = json.loads(kubectl.run("create", "--dry-run=server", "-o", "json", "-f", "-", stdin=json.dumps(manifest)))
    assert MODELS[manifest["kind"]].from_manifest(manifest).spec.to_manifest() == stored["spec"]


@pytest.mark.parametrize("manifest", DOCUMENTS)
def test_what_the_api_server_stored_is_read_back_unchanged(kubectl: Kubectl, manifest: dict[str, Any]) -> None:
    stored = json.loads(kubectl.run("create", "--dry-run=server", "-o", "json", "-f", "-", stdin=json.dumps(manifest)))
    assert MODELS[manifest["kind"]].from_manifest(stored).spec == MODELS[manifest["kind"]].from_manifest(manifest).spec
