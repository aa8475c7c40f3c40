"""Write small images without a builder: a docker-archive of one layer out of files of this machine. Deterministic."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath


@dataclass(frozen=True)
class Entry:
    """One thing in the image: one of `source` (a file here), `data`, `link` (a symlink's target); none: a directory."""

    path: str
    source: Path | None = None
    data: bytes | None = None
    link: str | None = None
    mode: int = 0o755


def _member(
    name: str, mode: int = 0o644, size: int = 0, kind: bytes = tarfile.REGTYPE, link: str = ""
) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.mode, info.size, info.type, info.linkname = mode, size, kind, link
    return info


def _add_directories(tar: tarfile.TarFile, path: PurePosixPath, seen: set[PurePosixPath]) -> None:
    for parent in reversed(path.parents):
        if parent.name and parent not in seen:
            seen.add(parent)
            tar.addfile(_member(str(parent), 0o1777 if str(parent) == "tmp" else 0o755, kind=tarfile.DIRTYPE))


def layer(entries: Sequence[Entry]) -> bytes:
    """An uncompressed layer with `entries`, their parent directories before them; owner root, no times."""
    buffer, seen = io.BytesIO(), set[PurePosixPath]()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for entry in entries:
            path = PurePosixPath(entry.path.lstrip("/"))
            if entry.link is not None:
                _add_directories(tar, path, seen)
                tar.addfile(_member(str(path), 0o777, kind=tarfile.SYMTYPE, link=entry.link))
            elif entry.source is None and entry.data is None:
                _add_directories(tar, path / "x", seen)
            else:
                _add_directories(tar, path, seen)
                data = entry.source.read_bytes() if entry.source else entry.data or b""
                tar.addfile(_member(str(path), entry.mode, len(data)), io.BytesIO(data))
    return buffer.getvalue()


def write(target: Path, reference: str, entries: Sequence[Entry], entrypoint: Sequence[str] = ()) -> str:
    """Write the archive of image `reference` to `target`; returns its id, the digest of its configuration."""
    content = layer(entries)
    layer_digest = hashlib.sha256(content).hexdigest()
    path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "created": "1970-01-01T00:00:00Z",
            "config": {"Entrypoint": list(entrypoint), "Env": [path], "WorkingDir": "/"},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{layer_digest}"]},
            "history": [{"created": "1970-01-01T00:00:00Z"}],
        }
    ).encode()
    image = hashlib.sha256(config).hexdigest()
    manifest = [{"Config": f"{image}.json", "RepoTags": [reference], "Layers": [f"{layer_digest}.tar"]}]
    partial = target.with_suffix(".new")
    with tarfile.open(partial, "w") as tar:
        parts = (
            (f"{image}.json", config),
            (f"{layer_digest}.tar", content),
            ("manifest.json", json.dumps(manifest).encode()),
        )
        for name, data in parts:
            tar.addfile(_member(name, size=len(data)), io.BytesIO(data))
    partial.replace(target)
    return f"sha256:{image}"
