"""kind and a foreign cluster stand behind the same commands, and say clearly what they cannot do."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from e2e.apiserver import ApiServer
from e2e.cluster import archive, kind, providers
from e2e.cluster.archive import Entry
from e2e.cluster.cli import app
from e2e.cluster.errors import ClusterError


@pytest.fixture
def fake_programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`docker` and `kind` that write down how they were called, before all others on PATH."""
    calls = tmp_path / "calls"
    calls.touch()
    for name in ("docker", "kind"):
        program = tmp_path / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(f'#!/bin/sh\necho "{name} $*" >> {calls}\n')
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    return calls


def console() -> Console:
    return Console(file=io.StringIO())


def test_an_unknown_provider_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ClusterError, match="embedded, kind, current"):
        providers.cluster("minikube")


def test_kind_without_docker_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    done = CliRunner().invoke(app, ["up", "--provider", "kind"])
    assert done.exit_code == 1
    assert "start Docker, or use `--provider embedded`" in done.output


def test_kind_without_kind_says_so(fake_programs: Path) -> None:
    (fake_programs.parent / "bin/kind").unlink()
    with pytest.raises(ClusterError, match="kind is not installed"):
        providers.provider("kind", console()).down()


def test_kind_is_taken_down_by_name(fake_programs: Path) -> None:
    providers.provider("kind", console()).down()
    assert "kind delete cluster --name=pinnace" in fake_programs.read_text()


def test_kind_loads_an_archive(fake_programs: Path, tmp_path: Path) -> None:
    archive.write(tmp_path / "i.tar", "localhost/i:1", [Entry("/x", data=b"")])
    assert providers.cluster("kind", console()).load_image(tmp_path / "i.tar") == ["localhost/i:1"]
    assert f"kind load image-archive {tmp_path / 'i.tar'} --name=pinnace" in fake_programs.read_text()


def test_kind_runs_the_same_kubernetes(tmp_path: Path) -> None:
    command = kind.create_command(tmp_path / "config")
    assert "--image=kindest/node:v1.37.2" in command
    assert f"--kubeconfig={tmp_path / 'config'}" in command


def test_a_current_cluster_is_used_and_never_taken_down(apiserver: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(apiserver.kubeconfig))
    cluster = providers.cluster("current", console()).up(bare=True)
    assert cluster.kubeconfig == apiserver.kubeconfig
    with pytest.raises(ClusterError, match="not ours to take down"):
        cluster.down()
    with pytest.raises(ClusterError, match="push it to a registry"):
        cluster.load_image(Path("i.tar"))


def test_a_current_cluster_that_does_not_answer_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    with pytest.raises(ClusterError, match="no kubeconfig at"):
        providers.cluster("current", console()).up()
