"""`pinnace merge FILE`, as people use it: with mergekit's YAML, with a MergeJob, and with what is wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import Result
from pinnace.cli import build
from typer.testing import CliRunner

from tests.merge.merges import loaded

MERGEKIT = """
merge_method: ties
base_model: {base}
models:
  - model: {m0}
    parameters: {{density: [1, 0.5, 0.25], weight: [{{filter: mlp, value: 0.5}}, {{value: 0.7}}]}}
  - model: {m1}
    parameters: {{density: 0.3, weight: 0.3}}
parameters: {{normalize: true, int8_mask: true}}
dtype: bfloat16
"""


@pytest.fixture
def models(families: Any) -> dict[str, Path]:
    return {folder.name: folder for folder in families()}


@pytest.fixture
def spec(models: dict[str, Path]) -> dict[str, Any]:
    """A MergeJob's, with local folders and plain numbers."""
    return {
        "method": {"slerp": {"t": 0.25}},
        "base": {"uri": str(models["base"])},
        "models": [{"name": "agent", "source": {"uri": str(models["m0"])}}],
    }


def run(tmp_path: Path, document: Any, *arguments: str) -> Result:
    """The command with that document in a file."""
    file = tmp_path / "config.yaml"
    file.write_text(document if isinstance(document, str) else yaml.safe_dump(document))
    return CliRunner().invoke(build(["merge"]), ["merge", str(file), *arguments], terminal_width=200)


def test_mergekits_yaml_is_planned_and_merged_as_it_is(models: dict[str, Path], tmp_path: Path) -> None:
    document = MERGEKIT.format(**models)
    plan = run(tmp_path, document, "--dry-run")
    assert plan.exit_code == 0, plan.output
    assert "ties: 35 tensors" in plan.output
    assert "computed in fp32 all the same" in plan.output
    assert not (tmp_path / "out").exists()
    done = run(tmp_path, document, "--output", str(tmp_path / "out"), "--memory", "4Gi")
    assert done.exit_code == 0, done.output
    assert (tmp_path / "out/manifest.json").exists()


def test_a_mergejob_is_merged_as_it_is_or_by_its_spec(spec: dict[str, Any], tmp_path: Path) -> None:
    whole = {"apiVersion": "pinnace.dev/v1alpha1", "kind": "MergeJob", "metadata": {"name": "a"}, "spec": spec}
    for name, document in {"spec": spec, "job": {**whole, "spec": {**spec, "queueName": "gpus"}}}.items():
        done = run(tmp_path, document, "-o", str(tmp_path / name), "--memory", "4Gi")
        assert done.exit_code == 0, done.output
    one, two = (loaded(tmp_path / name) for name in ("spec", "job"))
    assert all(one[name].equal(two[name]) for name in one)


def test_an_output_that_is_there_is_kept(spec: dict[str, Any], tmp_path: Path) -> None:
    arguments = ("-o", str(tmp_path / "out"), "--memory", "4Gi")
    assert run(tmp_path, spec, *arguments).exit_code == 0
    other = {**spec, "method": {"slerp": {"t": 0.5}}}
    refused = run(tmp_path, other, *arguments)
    assert (refused.exit_code, "holds an artifact already" in refused.output) == (1, True)
    assert run(tmp_path, other, *arguments, "--replace").exit_code == 0


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    refused = CliRunner().invoke(build(["merge"]), ["merge", str(tmp_path / "none.yaml"), "--dry-run"])
    assert (refused.exit_code, "No such file" in refused.output, "none.yaml" in refused.output) == (1, True, True)


def test_one_must_say_where_to_write(spec: dict[str, Any], tmp_path: Path) -> None:
    assert "--dry-run" in run(tmp_path, spec).output


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"merge_method": "tie"}, "did you mean ties"),
        ({"merge_method": "dare"}, "dare_ties"),
        ({"merge_method": "passthrough-of-layers"}, "use one of linear, task_arithmetic"),
        ({"models": [{"path": "here"}]}, "models[0].model is missing"),
        ({"models": None}, "models: give a list"),
        ({"dtype": "int8"}, "dtype 'int8': use one of bfloat16"),
        ({"models": [{"model": "/nowhere", "parameters": {"weight": 1}}]}, "/nowhere"),
        ({"merge": "ties"}, "mergekit has no 'merge'"),
        ({"slices": [{"sources": [{"model": "m"}]}], "models": None}, "layer_range"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_wrong_in_mergekits_yaml(
    changes: dict[str, Any], says: str, models: dict[str, Path], tmp_path: Path
) -> None:
    refused = run(tmp_path, {**yaml.safe_load(MERGEKIT.format(**models)), **changes}, "-o", str(tmp_path / "out"))
    assert (refused.exit_code, says in refused.output) == (1, True), refused.output
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changes", "code", "says"),
    [
        ({"method": {"slrp": {"t": 0.5}}}, 1, "did you mean slerp"),
        ({"method": {"slerp": {}}}, 64, "method.slerp.t"),
        ({"models": []}, 64, "models"),
        ({"base": {"from": {"kind": "SFTJob", "name": "a"}}}, 1, "need the operator"),
        ({"tokeniser": "Base"}, 64, "tokeniser"),
    ],
    ids=str,
)
def test_what_is_wrong_in_a_spec(
    changes: dict[str, Any], code: int, says: str, spec: dict[str, Any], tmp_path: Path
) -> None:
    refused = run(tmp_path, {**spec, **changes}, "--dry-run")
    assert (refused.exit_code, says in refused.output) == (code, True), refused.output


@pytest.mark.parametrize(
    ("text", "says"), [("- a\n- b\n", "holds no mapping"), ("a: [b\n", "config.yaml"), ("", "holds no mapping")]
)
def test_what_is_no_configuration_at_all(text: str, says: str, tmp_path: Path) -> None:
    refused = run(tmp_path, text, "--dry-run")
    assert (refused.exit_code, says in refused.output) == (1, True), refused.output


def test_memory_that_is_no_quantity(spec: dict[str, Any], tmp_path: Path) -> None:
    refused = run(tmp_path, spec, "-o", str(tmp_path / "out"), "--memory", "2GB")
    assert (refused.exit_code, "write it as 2Gi" in refused.output) == (2, True), refused.output


@pytest.mark.parametrize(
    ("job", "says"),
    [
        ("", "PINNACE_JOB is not set"),
        ('{"kind": "MergeJob"}', "name: Field required"),
        ('{"spec": {"method": {"tie": {}}}}', "spec.method"),
    ],
)
def test_a_pod_whose_job_can_not_be_read_ends_for_good(job: str, says: str, tmp_path: Path) -> None:
    environment = {**os.environ, "PINNACE_JOB": job, "PINNACE_TERMINATION_LOG": str(tmp_path / "said")}
    command = [sys.executable, "-c", "from pinnace.cli import main; main()", "merge", "run"]
    assert subprocess.run(command, env=environment, capture_output=True, check=False).returncode == 64
    said = json.loads((tmp_path / "said").read_text())
    assert (said["reason"], says in said["message"]) == ("InvalidSpec", True), said
