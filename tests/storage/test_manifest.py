"""Manifests survive the round trip, their digest depends on content only, and unsafe names never get in."""

from __future__ import annotations

import hashlib
import json
from pathlib import PurePosixPath
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pinnace.storage import DamagedFile, InvalidName, S3Uri
from pinnace.storage.manifest import FileEntry, Manifest, select
from pinnace.storage.uri import check_path

hexes = st.text("0123456789abcdef", min_size=64, max_size=64)
segments = st.text(
    st.characters(blacklist_categories=["Cs"], blacklist_characters="/\\\0"), min_size=1, max_size=40
).filter(lambda segment: segment not in {".", ".."} and len(segment.encode()) <= 255)
paths = st.lists(segments, min_size=1, max_size=4).map("/".join).filter(lambda path: path != "manifest.json")
entries = st.builds(FileEntry, path=paths, size=st.integers(0, 2**60), sha256=hexes)
manifests = st.builds(
    Manifest,
    kind=st.sampled_from(["checkpoint", "artifact"]),
    step=st.none() | st.integers(0, 2**40),
    policy_version=st.none() | st.integers(0, 2**40),
    config_hash=st.none() | st.text(max_size=20),
    parents=st.lists(hexes.map(lambda digest: f"sha256:{digest}"), max_size=3).map(tuple),
    score=st.none() | st.decimals(allow_nan=False, allow_infinity=False).map(str).map(str.lower),
    # One folder a file: no path is another's folder.
    files=st.lists(entries, max_size=6).map(
        lambda files: tuple(file.model_copy(update={"path": f"{n}/{file.path}"}) for n, file in enumerate(files))
    ),
    time=st.just("2026-01-01T00:00:00Z"),
)


@given(manifests)
def test_what_is_written_is_what_is_read(manifest: Manifest) -> None:
    again = Manifest.parse(manifest.to_json())
    assert again.digest == manifest.digest
    assert sorted(again.files, key=lambda file: file.path) == sorted(manifest.files, key=lambda file: file.path)


@given(manifests)
def test_the_digest_is_that_of_the_canonical_json_without_time(manifest: Manifest) -> None:
    stored = json.loads(manifest.to_json())
    del stored["time"]
    text = json.dumps(stored, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert manifest.digest == f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


@given(manifests, st.randoms())
def test_the_digest_ignores_time_and_order_and_nothing_else(manifest: Manifest, chance: Any) -> None:
    files = list(manifest.files)
    chance.shuffle(files)
    assert manifest.model_copy(update={"files": tuple(files), "time": "2027-01-01T00:00:00Z"}).digest == manifest.digest
    assert manifest.model_copy(update={"config_hash": (manifest.config_hash or "") + "x"}).digest != manifest.digest


@given(st.binary(max_size=200))
def test_garbage_is_a_damaged_manifest(content: bytes) -> None:
    with pytest.raises(DamagedFile, match=r"manifest\.json"):
        Manifest.parse(content)


GOOD: dict[str, Any] = {
    "version": 1,
    "kind": "checkpoint",
    "files": [{"path": "a", "size": 1, "sha256": "0" * 64}],
    "time": "2026-01-01T00:00:00Z",
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 2}, "version"),
        ({"surprise": 1}, "surprise"),
        ({"files": None}, "files"),
        ({"files": [{"path": "a", "size": -1, "sha256": "0" * 64}]}, "size"),
        ({"files": [{"path": "a", "size": "1", "sha256": "0" * 64}]}, "size"),
        ({"files": [{"path": "a", "size": 1, "sha256": "0"}]}, "sha256"),
        ({"files": GOOD["files"] * 2}, "listed twice"),
        ({"files": [{**GOOD["files"][0], "path": path} for path in ("a", "a/b")]}, "as a file and as a folder"),
        ({"parents": ["md5:1"]}, "parents"),
        ({"score": "NaN"}, "score"),
        *(
            ({"files": [{"path": path, "size": 1, "sha256": "0" * 64}]}, "relative path")
            for path in ("../a", "a/../../b", "/etc/passwd", "a//b", ".", "a/.", "a\\..\\b", "", "a\0b")
        ),
        ({"files": [{"path": "manifest.json", "size": 1, "sha256": "0" * 64}]}, "can't list itself"),
        ({"files": [{"path": "n" * 256, "size": 1, "sha256": "0" * 64}]}, "longer than 255"),
    ],
)
def test_a_bad_manifest_is_refused_with_the_field(change: dict[str, Any], message: str) -> None:
    assert Manifest.parse(json.dumps(GOOD).encode()).files[0].path == "a"
    with pytest.raises(DamagedFile, match=message):
        Manifest.parse(json.dumps({**GOOD, **change}).encode())


@given(st.text(max_size=30))
def test_a_path_that_is_accepted_stays_inside(path: str) -> None:
    try:
        check_path(path)
    except InvalidName:
        return
    parts = PurePosixPath("/dest", path).parts
    assert parts[:2] == ("/", "dest")
    assert ".." not in parts
    assert len(parts) > 2


@given(paths, paths)
def test_addresses_take_apart_what_they_put_together(folder: str, path: str) -> None:
    uri = S3Uri("bucket", folder)
    assert uri.relative(uri / path) == path
    assert S3Uri.parse(str(uri / path)) == uri / path


@pytest.mark.parametrize("text", ["", "bucket/key", "http://a/b", "s3://", "s3://UP/x", "s3://bucket/../x", "s3://b/x"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(InvalidName):
        S3Uri.parse(text)


def test_only_selects_whole_path_segments() -> None:
    files = [
        FileEntry(path=path, size=0, sha256="0" * 64) for path in ("state/a", "state2/a", "state", "model/state/b")
    ]
    assert [file.path for file in select(files, ["state"])] == ["state/a", "state"]
    assert select(files, []) == files
