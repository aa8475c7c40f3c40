"""Images that we write are deterministic, and archives tell which images are in them before anything is imported."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from e2e.cluster import archive
from e2e.cluster.archive import Entry
from e2e.cluster.containerd import inspect
from e2e.cluster.errors import ClusterError

ENTRIES = [
    Entry("/bin/tool", data=b"#!"),
    Entry("/bin/other", link="tool"),
    Entry("/tmp"),
    Entry("/etc/x", data=b"y", mode=0o644),
]


def members(target: Path) -> list[tarfile.TarInfo]:
    with tarfile.open(target) as tar:
        layer = next(name for name in tar.getnames() if name.endswith(".tar"))
        content = tar.extractfile(layer)
        assert content
        return tarfile.open(fileobj=io.BytesIO(content.read())).getmembers()


def test_an_archive_holds_files_links_and_parents(tmp_path: Path) -> None:
    archive.write(tmp_path / "i.tar", "localhost/i:1", ENTRIES, ["/bin/tool"])
    found = {member.name: member for member in members(tmp_path / "i.tar")}
    assert list(found) == ["bin", "bin/tool", "bin/other", "tmp", "etc", "etc/x"]
    assert found["bin/other"].linkname == "tool"
    assert (found["bin/tool"].mode, found["etc/x"].mode, found["tmp"].mode) == (0o755, 0o644, 0o1777)
    assert {(member.uid, member.mtime) for member in found.values()} == {(0, 0)}


def test_the_same_files_make_the_same_image(tmp_path: Path) -> None:
    ids = {archive.write(tmp_path / f"{n}.tar", "localhost/i:1", ENTRIES) for n in range(2)}
    assert len(ids) == 1
    assert (tmp_path / "0.tar").read_bytes() == (tmp_path / "1.tar").read_bytes()


def test_a_docker_archive_tells_name_and_id(tmp_path: Path) -> None:
    image = archive.write(tmp_path / "i.tar", "localhost/i:1", ENTRIES)
    (found,) = inspect(tmp_path / "i.tar")
    assert (found.references, found.config_digest) == (("localhost/i:1",), image)


def write_oci(target: Path, annotations: dict[str, str], prefix: str = "") -> str:
    """An OCI archive without its layers, as one that leaves out what is there already."""
    manifest = json.dumps({"config": {"digest": "sha256:abc"}, "layers": []}).encode()
    digest = hashlib.sha256(manifest).hexdigest()
    index: dict[str, Any] = {"manifests": [{"digest": f"sha256:{digest}", "annotations": annotations}]}
    with tarfile.open(target, "w") as tar:
        for name, data in ((f"blobs/sha256/{digest}", manifest), ("index.json", json.dumps(index).encode())):
            info = tarfile.TarInfo(prefix + name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return digest


@pytest.mark.parametrize("prefix", ["", "./"])
def test_an_oci_archive_tells_name_and_id(tmp_path: Path, prefix: str) -> None:
    write_oci(tmp_path / "i.tar", {"io.containerd.image.name": "localhost/i:2"}, prefix)
    (found,) = inspect(tmp_path / "i.tar")
    assert (found.references, found.config_digest) == (("localhost/i:2",), "sha256:abc")


def test_an_image_without_a_name_is_refused(tmp_path: Path) -> None:
    write_oci(tmp_path / "i.tar", {})
    with pytest.raises(ClusterError, match="no named image"):
        inspect(tmp_path / "i.tar")


def test_what_is_no_archive_is_refused_with_its_path(tmp_path: Path) -> None:
    (tmp_path / "i.tar").write_bytes(b"no tar")
    for name in ("i.tar", "missing.tar"):
        with pytest.raises(ClusterError, match=f"{name} is not an image archive"):
            inspect(tmp_path / name)
