"""Publishing and fetching artifacts."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
from pinnace.storage import (
    Ancestor,
    Conflict,
    DamagedFile,
    DiskFull,
    Incomplete,
    InvalidName,
    NotFound,
    RunDirectory,
    S3Settings,
    Storage,
    tokenizer_hash,
)

from e2e.faults.s3proxy import Fault, S3Proxy
from e2e.stored import PART, Tree, contents, keys

PARENT = "sha256:" + "1" * 64


def test_what_is_published_can_be_fetched(storage: Storage, run: RunDirectory, tree: Tree, tmp_path: Path) -> None:
    model = tree("model", big=PART, **{"config.json": b"{}", "tokenizer.json": b"{}"})
    assert run.published() is None
    lineage = [Ancestor(ref="model", uri="s3://bucket/base", digest=PARENT)]
    published = storage.publish(model, run.output, base_model="s3://bucket/base", lineage=lineage)
    assert run.published() == published
    assert storage.fetch(published.uri, tmp_path / "back", published.digest) == published
    back = contents(tmp_path / "back")
    description = json.loads(back.pop("artifact.json"))
    assert back == contents(model)
    assert description == {
        "kind": "model",
        "baseModel": "s3://bucket/base",
        "tokenizerHash": tokenizer_hash(model),
        "lineage": [{"ref": "model", "uri": "s3://bucket/base", "digest": PARENT}],
    }
    shown = storage.show(published.uri)
    assert shown.manifest.parents == (PARENT,)
    assert shown.description is not None


def test_publishing_the_same_again_gives_the_same_digest(storage: Storage, run: RunDirectory, tree: Tree) -> None:
    model = tree("model")
    assert storage.publish(model, run.output) == storage.publish(model, run.output)


def test_replacing_leaves_nothing_of_the_old_one(
    storage: Storage, run: RunDirectory, settings: S3Settings, raw: Any, tree: Tree
) -> None:
    old = storage.publish(tree("old", a=b"1", b=b"2"), run.output)
    with pytest.raises(Conflict, match="holds an artifact already"):
        storage.publish(tree("other", a=b"2"), run.output, replace=False)
    new = storage.publish(tree("new", a=b"2"), run.output)
    assert new.digest != old.digest
    assert [key.rpartition("/")[2] for key in keys(raw, settings.bucket)] == ["a", "artifact.json", "manifest.json"]
    with pytest.raises(DamagedFile, match="it was replaced since"):
        storage.fetch(new.uri, Path("/nonexistent"), old.digest)


def test_damage_and_absence_are_told_apart(
    storage: Storage, run: RunDirectory, settings: S3Settings, raw: Any, tree: Tree, tmp_path: Path
) -> None:
    with pytest.raises(NotFound, match="nothing is stored there"):
        storage.fetch(run.output, tmp_path / "x")
    published = storage.publish(tree(), run.output)
    raw.put_object(Bucket=settings.bucket, Key=f"{run.output.key}/weights.bin", Body=b"WEIGHTS")
    with pytest.raises(DamagedFile, match=r"weights\.bin"):
        storage.fetch(published.uri, tmp_path / "x")
    raw.delete_object(Bucket=settings.bucket, Key=f"{run.output.key}/manifest.json")
    with pytest.raises(Incomplete, match="pinnace artifact push"):
        storage.fetch(published.uri, tmp_path / "x")


def test_a_full_disk_is_seen_before_anything_is_transferred(
    storage: Storage, run: RunDirectory, tree: Tree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published = storage.publish(tree(a=b"x" * 1000), run.output)
    usage = type("Usage", (), {"free": 10})
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(DiskFull, match="give the volume more room"):
        storage.fetch(published.uri, tmp_path / "back")
    assert contents(tmp_path / "back") == {}


ODD = [
    "ü/日本 語.txt",
    "a b+c&d=?#%25",
    "tab\there",
    "new\nline",
    "q'\"<>",
    "e:f*",
    ".hidden",
    "-dash",
    "é",
    "e\u0301",
    "😀",
    "n" * 255,
    "\x01ctl",
]


def test_odd_names_and_empty_files_survive(storage: Storage, run: RunDirectory, tmp_path: Path) -> None:
    folder = tmp_path / "odd"
    for number, name in enumerate(ODD):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x" * number)
    (folder / "link").symlink_to(folder / ".hidden")
    published = storage.publish(folder, run.output)
    storage.fetch(published.uri, tmp_path / "back")
    back = contents(tmp_path / "back")
    del back["artifact.json"]
    assert back == contents(folder)
    assert len(back) == len(ODD) + 1


@pytest.mark.parametrize("make", ["back\\slash", b"not-utf8-\xff", "manifest.json", "dangling", "folder-link", "fifo"])
def test_what_can_not_be_stored_is_refused_by_name(
    storage: Storage, run: RunDirectory, settings: S3Settings, raw: Any, tree: Tree, make: str | bytes
) -> None:
    folder = tree("folder", good=b"1")
    path = os.path.join(os.fsencode(folder), make if isinstance(make, bytes) else make.encode())  # noqa: PTH118 - bytes
    if make == "dangling":
        Path(os.fsdecode(path)).symlink_to("/nonexistent")
    elif make == "folder-link":
        Path(os.fsdecode(path)).symlink_to("/tmp")
    elif make == "fifo":
        os.mkfifo(path)
    else:
        Path(os.fsdecode(path)).write_bytes(b"1")
    with pytest.raises(InvalidName):
        storage.publish(folder, run.output)
    assert keys(raw, settings.bucket) == []


@pytest.mark.slow
def test_thousands_of_small_files(storage: Storage, run: RunDirectory, tmp_path: Path) -> None:
    folder = tmp_path / "many"
    for number in range(2_000):
        file = folder / f"{number % 100:02d}" / f"{number:05d}"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"%d" % number)
    published = storage.publish(folder, run.output)
    storage.fetch(published.uri, tmp_path / "back", published.digest)
    assert len(contents(tmp_path / "back")) == 2_001


def test_streams_seek_and_survive_broken_bodies(
    storage: Storage, proxied: Storage, proxy: S3Proxy, settings: S3Settings
) -> None:
    uri = settings.root / "data.jsonl"
    lines = [json.dumps({"line": number, "text": "x" * 50}).encode() + b"\n" for number in range(100_000)]
    storage.write(uri, b"".join(lines))
    proxy.fault = Fault("cut", after=1 << 20, times=1)
    with proxied.open(uri) as stream:
        assert list(stream) == lines
        stream.seek(-len(lines[-1]), os.SEEK_END)
        assert stream.read() == lines[-1]
        assert stream.seek(len(lines[0])) == len(lines[0])
        assert stream.readline() == lines[1]
    assert storage.ranged(uri, 1, 5) == lines[0][1:5]
    assert storage.ranged(uri, 10**9, 10**9 + 1) == b""
    assert [str(found.uri) for found in storage.list(settings.root)] == [str(uri)]
    with pytest.raises(NotFound):
        storage.open(settings.root / "absent")


def test_a_storage_may_be_pickled_and_used_after_a_fork(storage: Storage, settings: S3Settings) -> None:
    storage.write(settings.root / "x", b"1")
    again: Storage = pickle.loads(pickle.dumps(storage))  # noqa: S301 - our own bytes
    assert again.ranged(settings.root / "x", 0, 1) == b"1"
    child = os.fork()
    if child == 0:
        os._exit(0 if storage.ranged(settings.root / "x", 0, 1) == b"1" else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert storage.ranged(settings.root / "x", 0, 1) == b"1"
