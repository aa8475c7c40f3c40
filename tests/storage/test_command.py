"""`pinnace artifact` and `pinnace checkpoint`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pinnace.cli import build
from pinnace.storage import RunDirectory, S3Settings
from typer.testing import CliRunner, Result

from e2e.stored import Tree, contents, save


@pytest.fixture
def environ(settings: S3Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "PINNACE_S3_ENDPOINT": settings.endpoint,
        "PINNACE_S3_BUCKET": settings.bucket,
        "AWS_ACCESS_KEY_ID": settings.access_key,
        "AWS_SECRET_ACCESS_KEY": settings.secret_key,
    }.items():
        monkeypatch.setenv(name, value or "")


def _pinnace(*arguments: str | Path) -> Result:
    texts = [str(argument) for argument in arguments]
    return CliRunner().invoke(build(texts), texts)


@pytest.mark.usefixtures("environ")
def test_push_show_pull(settings: S3Settings, tree: Tree, tmp_path: Path) -> None:
    folder, uri = tree(), f"s3://{settings.bucket}/models/base"
    pushed = _pinnace("artifact", "push", folder, uri)
    assert pushed.exit_code == 0, pushed.output
    digest = pushed.output.split()[1]
    assert json.loads(_pinnace("artifact", "show", uri).output)["digest"] == digest
    assert _pinnace("artifact", "pull", uri, tmp_path / "back", "--digest", digest).exit_code == 0
    back = contents(tmp_path / "back")
    del back["artifact.json"]
    assert back == contents(folder)
    refused = _pinnace("artifact", "push", folder, uri)
    assert refused.exit_code == 1
    assert "Conflict" in refused.output
    assert _pinnace("artifact", "push", folder, uri, "--replace").exit_code == 0


@pytest.mark.usefixtures("environ")
def test_checkpoints_are_listed_and_verified(run: RunDirectory, settings: S3Settings, raw: Any, tree: Tree) -> None:
    folder = tree()
    save(run, 1, folder)
    save(run, 2, folder)
    listed = _pinnace("checkpoint", "list", str(run.uri))
    assert listed.exit_code == 0
    assert "sha256:" in listed.output
    assert _pinnace("checkpoint", "verify", str(run.uri)).exit_code == 0
    raw.put_object(
        Bucket=settings.bucket, Key=f"{run.uri.key}/checkpoints/step-00000002/state/weights.bin", Body=b"WEIGHTS"
    )
    verified = _pinnace("checkpoint", "verify", str(run.uri))
    assert verified.exit_code == 1
    assert "step 1: ok" in verified.output
    assert "step 2: state/weights.bin" in verified.output


def test_a_missing_setting_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PINNACE_S3_BUCKET", raising=False)
    result = _pinnace("checkpoint", "list", "s3://bucket/x")
    assert result.exit_code == 1
    assert "PINNACE_S3_BUCKET is not set" in result.output
    assert "Traceback" not in result.output
