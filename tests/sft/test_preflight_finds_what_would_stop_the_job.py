"""`pinnace sft preflight` ends in seconds with the exit code and the message that the user gets."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pinnace.tiny.model import write_tiny_model

GOOD = {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]}
COMMAND = (
    "import sys; from pinnace.cli import main\ntry: main()\nfinally: print('torch loaded:', 'torch' in sys.modules)"
)


def preflight(cluster: Any, job: dict[str, Any], folder: Path, **env: str) -> tuple[int, dict[str, Any], str]:
    message = folder / "termination"
    environment = (
        os.environ | cluster.env | {"PINNACE_JOB": json.dumps(job), "PINNACE_TERMINATION_LOG": str(message)} | env
    )
    ended = subprocess.run(
        [sys.executable, "-c", COMMAND, "sft", "preflight"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    return ended.returncode, json.loads(message.read_text()) if message.exists() else {}, ended.stdout + ended.stderr


def test_a_good_job_passes_without_loading_torch_and_leaves_a_data_report(cluster: Any, tmp_path: Path) -> None:
    job = cluster.job("fine")
    code, _, output = preflight(cluster, job, tmp_path)
    assert (code, "torch loaded: False" in output) == (0, True), output
    report = json.loads(cluster.storage.open(cluster.run_of(job).history / "data-report.json").read())
    assert report["train"]["records"] == 96


def test_bad_data_ends_with_65_and_names_the_line(cluster: Any, tmp_path: Path) -> None:
    cluster.storage.write(cluster.uri("data/one-bad.jsonl"), (json.dumps(GOOD) + "\n{}\n").encode())
    job = cluster.job("bad-data")
    job["spec"]["data"] = {"train": {"uri": cluster.uri("data/one-bad.jsonl")}}
    code, outcome, _ = preflight(cluster, job, tmp_path)
    assert (code, outcome["reason"]) == (65, "InvalidData")
    assert "one-bad.jsonl:2: `messages` must be a non-empty list" in outcome["message"]


@pytest.mark.parametrize(
    ("remove", "message"),
    [
        ("model.safetensors", "lacks model.safetensors"),
        ("config.json", "no readable config.json"),
        ("tokenizer.json", "no tokenizer.json"),
        ("chat_template.jinja", "data.chatTemplate"),
    ],
)
def test_an_incomplete_model_ends_with_78_and_names_the_file(
    cluster: Any, tmp_path: Path, remove: str, message: str
) -> None:
    write_tiny_model(tmp_path / "model")
    (tmp_path / "model" / remove).unlink()
    uri = cluster.uri(f"models/without-{remove}")
    cluster.storage.publish(tmp_path / "model", uri)
    job = cluster.job("bad-model")
    job["resolved"]["model"]["uri"] = uri
    code, outcome, _ = preflight(cluster, job, tmp_path)
    assert (code, outcome["reason"]) == (78, "ModelUnusable")
    assert message in outcome["message"]


def test_an_address_without_a_model_ends_with_78(cluster: Any, tmp_path: Path) -> None:
    job = cluster.job("no-model")
    job["resolved"]["model"]["uri"] = cluster.uri("models/absent")
    code, outcome, _ = preflight(cluster, job, tmp_path)
    assert (code, outcome["reason"]) == (78, "ModelUnusable")
    assert "nothing is stored" in outcome["message"]


@pytest.mark.parametrize("env", [{"PINNACE_S3_BUCKET": "no-such-bucket"}, {"AWS_SECRET_ACCESS_KEY": "wrong"}])
def test_unusable_storage_ends_with_69(cluster: Any, tmp_path: Path, env: dict[str, str]) -> None:
    code, outcome, output = preflight(cluster, cluster.job("no-storage"), tmp_path, **env)
    assert (code, outcome["reason"]) == (69, "StorageUnavailable"), output
    assert cluster.env["AWS_SECRET_ACCESS_KEY"] not in output


def test_a_spec_that_cannot_work_ends_with_64(cluster: Any, tmp_path: Path) -> None:
    job = cluster.job("bad-spec")
    job["spec"]["training"]["microBatchSize"] = 3
    code, outcome, _ = preflight(cluster, job, tmp_path)
    assert (code, outcome["reason"]) == (64, "InvalidSpec")
    assert "globalBatchSize" in outcome["message"]


def test_the_tiny_model_is_published_from_the_command_line(cluster: Any) -> None:
    uri = cluster.uri("models/from-the-command-line")
    command = "from pinnace.cli import main; main()"
    subprocess.run([sys.executable, "-c", command, "tiny-model", uri], env=os.environ | cluster.env, check=True)
    files = {each.uri.name for each in cluster.storage.list(uri)}
    assert {"model.safetensors", "tokenizer.json", "chat_template.jinja", "manifest.json"} <= files
