"""The programs are built when something they depend on changed, and only then."""

from __future__ import annotations

from pathlib import Path

import pytest

from e2e.cluster import build, paths, versions


@pytest.fixture
def module(tmp_path: Path) -> Path:
    (tmp_path / "coredns").mkdir()
    for name in ("go.mod", "go.sum", "tools.go", "coredns/main.go"):
        (tmp_path / name).write_text(name)
    return tmp_path


@pytest.mark.parametrize("name", ["go.mod", "go.sum", "coredns/main.go", "new.go"])
def test_a_changed_source_changes_the_stamp(module: Path, name: str) -> None:
    before = build.fingerprint(module, "go1.26.8")
    assert build.fingerprint(module, "go1.26.8") == before
    (module / name).write_text("changed")
    assert build.fingerprint(module, "go1.26.8") != before


def test_another_go_changes_the_stamp(module: Path) -> None:
    assert build.fingerprint(module, "go1.26.8") != build.fingerprint(module, "go1.26.9")


def test_other_flags_change_the_stamp(module: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = build.fingerprint(module, "go1.26.8")
    monkeypatch.setattr(versions, "KUBERNETES", "v1.99.0")
    assert build.fingerprint(module, "go1.26.8") != before


def test_a_missing_program_is_built_again(tmp_path: Path) -> None:
    for name in build.PROGRAMS.values():
        (tmp_path / name).touch()
    (tmp_path / ".stamp").write_text("stamp")
    assert build.is_current(tmp_path, "stamp")
    assert not build.is_current(tmp_path, "other")
    (tmp_path / "etcd").unlink()
    assert not build.is_current(tmp_path, "stamp")


@pytest.mark.parametrize(
    ("package", "name"),
    [("go.etcd.io/etcd/server/v3", "server"), ("k8s.io/kubernetes/cmd/kubelet", "kubelet"), ("./coredns", "coredns")],
)
def test_a_program_is_found_under_the_name_that_go_gives_it(package: str, name: str) -> None:
    assert build.go_name(package) == name


def test_no_two_programs_are_built_to_one_file() -> None:
    assert len({build.go_name(package) for package in build.PROGRAMS}) == len(build.PROGRAMS)


def test_everything_go_writes_stays_in_the_cache() -> None:
    environment = build.environment({"HOME": "/root", "PATH": "/bin"})
    assert {environment[name] for name in ("GOMODCACHE", "GOCACHE")} == {str(paths.GOMODCACHE), str(paths.GOCACHE)}
    assert environment["CGO_ENABLED"] == "0"


def test_kubernetes_reports_the_version_that_the_module_pins() -> None:
    required = (build.MODULE / "go.mod").read_text()
    assert f"k8s.io/kubernetes {versions.KUBERNETES}\n" in required
    assert f"sigs.k8s.io/jobset {versions.JOBSET}\n" in required
    assert "gitMajor=1 " in build.linker_flags()
