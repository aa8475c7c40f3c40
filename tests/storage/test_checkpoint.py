"""A checkpoint is what its manifest says, or it does not exist."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pinnace.storage import (
    CheckpointFailed,
    Committed,
    DamagedFile,
    Failed,
    Incomplete,
    InvalidName,
    NotFound,
    RunDirectory,
    S3Settings,
    Storage,
    StorageUnavailable,
)

from e2e.faults.s3proxy import Fault, S3Proxy
from e2e.stored import PART, Tree, contents, keys, save

STEP_7 = "team/a/ns/sftjob/job/12345678/checkpoints/step-00000007"


def test_what_is_saved_comes_back(run: RunDirectory, tree: Tree, tmp_path: Path) -> None:
    state, model = tree("state", big=2 * PART, empty=b"", small=b"1"), tree("model", config=b"{}")
    upload = run.checkpoints.begin(7)
    upload.add(state, "state")
    upload.add(model, "model")
    upload.commit(parents=["sha256:" + "0" * 64], config_hash="c", policy_version=3, score="-1.5")
    run.checkpoints.wait(60)

    found = run.checkpoints.newest()
    assert found is not None
    assert (found.step, found.manifest.policy_version, found.manifest.score) == (7, 3, "-1.5")
    assert found.uri.endswith("/checkpoints/step-00000007")
    dest = found.download(tmp_path / "back")
    assert contents(dest / "state") == contents(state)
    assert contents(dest / "model") == contents(model)
    assert found.ref.digest == found.digest


def test_only_the_wanted_folders_are_downloaded(run: RunDirectory, tree: Tree, tmp_path: Path) -> None:
    upload = run.checkpoints.begin(1)
    upload.add(tree("a"), "state/rank-0")
    upload.add(tree("b"), "state/rank-01")
    upload.commit()
    run.checkpoints.wait(60)
    found = run.checkpoints.newest()
    assert found is not None
    dest = found.download(tmp_path / "back", only=("state/rank-0",))
    assert sorted(contents(dest)) == ["state/rank-0/empty", "state/rank-0/weights.bin"]
    with pytest.raises(NotFound, match="no files below optimizer"):
        found.download(tmp_path / "back", only=("optimizer",))


def test_the_layout_is_the_contract(run: RunDirectory, settings: S3Settings, raw: Any, tree: Tree) -> None:
    save(run, 7, tree())
    assert keys(raw, settings.bucket) == [
        f"{STEP_7}/{name}" for name in ("manifest.json", "parts/rank-00000.json", "state/empty", "state/weights.bin")
    ]
    manifest = json.loads(raw.get_object(Bucket=settings.bucket, Key=f"{STEP_7}/manifest.json")["Body"].read())
    assert set(manifest) == {
        "version",
        "kind",
        "step",
        "policyVersion",
        "configHash",
        "parents",
        "score",
        "files",
        "time",
    }
    assert set(manifest["files"][0]) == {"path", "size", "sha256"}


def test_without_a_manifest_it_does_not_exist(run: RunDirectory, settings: S3Settings, raw: Any, tree: Tree) -> None:
    folder = tree()
    save(run, 6, folder)
    save(run, 7, folder)
    raw.delete_object(Bucket=settings.bucket, Key=f"{STEP_7}/manifest.json")
    found = run.checkpoints.newest()
    assert found is not None
    assert found.step == 6
    assert [(skipped.step, "did not finish" in skipped.reason) for skipped in run.checkpoints.damaged] == [(7, True)]
    with pytest.raises(Incomplete):
        run.checkpoints.at(7)


@pytest.mark.parametrize(
    ("key", "body", "names"),
    [
        ("state/weights.bin", b"weight", "state/weights.bin: has 6 bytes, the manifest says 7"),
        ("state/weights.bin", None, "state/weights.bin: is missing"),
        ("manifest.json", b'{"version": 1', "manifest.json: JSON"),
        ("manifest.json", b"", "manifest.json"),
        ("manifest.json", b'{"version": 2}', "manifest.json: version"),
    ],
)
def test_damage_that_a_listing_shows_is_skipped_with_the_reason(
    run: RunDirectory, settings: S3Settings, raw: Any, tree: Tree, key: str, body: bytes | None, names: str
) -> None:
    folder = tree()
    save(run, 6, folder)
    save(run, 7, folder)
    if body is None:
        raw.delete_object(Bucket=settings.bucket, Key=f"{STEP_7}/{key}")
    else:
        raw.put_object(Bucket=settings.bucket, Key=f"{STEP_7}/{key}", Body=body)
    found = run.checkpoints.newest()
    assert found is not None
    assert found.step == 6
    assert run.checkpoints.damaged[0].step == 7
    assert names in run.checkpoints.damaged[0].reason


@pytest.mark.parametrize("big", [0, 2 * PART])
def test_a_flipped_byte_is_refused_with_the_files_name(
    run: RunDirectory, settings: S3Settings, raw: Any, tree: Tree, tmp_path: Path, big: int
) -> None:
    folder = tree(big=big)
    newer = tree("newer", big=big, **{"weights.bin": b"weights", "only-in-7": b"7"})
    save(run, 6, folder)
    save(run, 7, newer)
    name = "big.bin" if big else "weights.bin"
    body = bytearray((newer / name).read_bytes())
    body[len(body) // 2] ^= 1
    raw.put_object(Bucket=settings.bucket, Key=f"{STEP_7}/state/{name}", Body=bytes(body))

    with pytest.raises(DamagedFile, match=rf"state/{name}: its SHA-256") as damaged:
        run.checkpoints.at(7).download(tmp_path / "bad")
    assert damaged.value.name == f"state/{name}"
    assert name not in {path.name for path in (tmp_path / "bad").rglob("*")}
    # Resuming falls back to the older one and says why.
    restored = run.checkpoints.restore(tmp_path / "good")
    assert restored is not None
    assert restored.step == 6
    assert [skipped.step for skipped in run.checkpoints.damaged] == [7]
    assert contents(tmp_path / "good/state") == contents(folder)


def test_manifests_can_not_write_outside_the_destination(
    run: RunDirectory, settings: S3Settings, raw: Any, tree: Tree, tmp_path: Path
) -> None:
    save(run, 7, tree())
    key = f"{STEP_7}/manifest.json"
    text = raw.get_object(Bucket=settings.bucket, Key=key)["Body"].read().decode()
    raw.put_object(Bucket=settings.bucket, Key=key, Body=text.replace("state/empty", "../../evil").encode())
    assert run.checkpoints.restore(tmp_path / "dest") is None
    assert "no plain relative path" in run.checkpoints.damaged[0].reason


def test_a_checkpoint_needs_every_rank(storage: Storage, tree: Tree, tmp_path: Path) -> None:
    events: list[object] = []
    ranks = [storage.run("r", session="1", listener=events.append, retry_cap=0.05).checkpoints for _ in range(3)]
    folders = [tree(f"rank{rank}", shard=b"%d" % rank) for rank in range(3)]
    for rank in (0, 2):
        upload = ranks[rank].begin(5, rank=rank, world_size=3)
        upload.add(folders[rank], f"state/rank-{rank}")
        upload.commit(config_hash="c")
    ranks[2].wait(30)
    with pytest.raises(StorageUnavailable, match="steps 5"):
        ranks[0].wait(0.5)
    assert ranks[0].newest() is None

    upload = ranks[1].begin(5, rank=1, world_size=3)
    upload.add(folders[1], "state/rank-1")
    upload.commit()
    ranks[0].wait(30)
    found = ranks[2].newest()
    assert found is not None
    assert [type(event) for event in events if isinstance(event, Committed)] == [Committed]
    assert contents(found.download(tmp_path / "back")) == {
        f"state/rank-{rank}/shard": b"%d" % rank for rank in range(3)
    }


def test_parts_of_a_dead_attempt_are_not_mixed_in(storage: Storage, tree: Tree, tmp_path: Path) -> None:
    dead = storage.run("r", session="0", retry_cap=0.05).checkpoints
    old = dead.begin(5, rank=1, world_size=2)
    old.add(tree("old", shard=b"old"), "state/1")
    old.commit()
    dead.wait(30)

    ranks = [storage.run("r", session="1", retry_cap=0.05).checkpoints for _ in range(2)]
    for rank in range(2):
        if rank == 1:
            with pytest.raises(StorageUnavailable):
                ranks[0].wait(0.5)
        upload = ranks[rank].begin(5, rank=rank, world_size=2)
        upload.add(tree(f"new{rank}", shard=b"new"), f"state/{rank}")
        upload.commit()
    ranks[0].wait(30)
    found = ranks[0].newest()
    assert found is not None
    assert set(contents(found.download(tmp_path / "back")).values()) == {b"new"}


def test_a_rank_that_can_not_read_its_files_fails_the_checkpoint_on_all(
    storage: Storage, proxied: Storage, proxy: S3Proxy, tree: Tree
) -> None:
    events: list[object] = []
    ranks = [
        where.run("r", session="1", listener=events.append, retry_cap=0.05).checkpoints for where in (storage, proxied)
    ]
    folders = tree("good"), tree("bad")
    proxy.fault = Fault("busy")
    for rank in range(2):
        upload = ranks[rank].begin(5, rank=rank, world_size=2)
        upload.add(folders[rank], f"state/{rank}")
        upload.commit()
    (folders[1] / "weights.bin").unlink()  # while the store is busy, nothing was uploaded
    proxy.fault = None
    for rank in (1, 0):
        with pytest.raises(CheckpointFailed, match="weights"):
            ranks[rank].wait(30)
    assert [event.step for event in events if isinstance(event, Failed)] == [5, 5]
    assert ranks[0].newest() is None
    ranks[0].wait(1)  # told once


def test_rewind_removes_what_a_dead_attempt_left(run: RunDirectory, settings: S3Settings, raw: Any, tree: Tree) -> None:
    folder = tree()
    for step in (6, 7, 8):
        save(run, step, folder)
    raw.delete_object(Bucket=settings.bucket, Key=f"{STEP_7}/manifest.json")
    left = raw.create_multipart_upload(Bucket=settings.bucket, Key=f"{STEP_7}/state/big")["UploadId"]
    raw.upload_part(Bucket=settings.bucket, Key=f"{STEP_7}/state/big", UploadId=left, PartNumber=1, Body=b"1")
    assert run.checkpoints.rewind(run.checkpoints.at(6)) == [7, 8]
    assert not [key for key in keys(raw, settings.bucket) if "step-00000006" not in key]
    assert not raw.list_multipart_uploads(Bucket=settings.bucket).get("Uploads")
    save(run, 7, folder)
    found = run.checkpoints.newest()
    assert found is not None
    assert found.step == 7


def test_local_files_go_once_they_are_durable(run: RunDirectory, tree: Tree) -> None:
    folder = tree()
    upload = run.checkpoints.begin(1)
    upload.add(folder, "state", keep_local=False)
    upload.commit()
    run.checkpoints.wait(30)
    assert not folder.exists()
    assert run.checkpoints.pending_bytes == 0


def test_mistakes_are_refused_at_once(run: RunDirectory, tree: Tree) -> None:
    folder = tree()
    upload = run.checkpoints.begin(1)
    upload.add(folder, "state")
    with pytest.raises(ValueError, match="added twice"):
        upload.add(folder, "state")
    with pytest.raises(InvalidName, match="reserved"):
        upload.add(folder, "parts")
    with pytest.raises(ValueError, match="score"):
        upload.commit(score="NaN")
    upload.commit()
    with pytest.raises(ValueError, match="committed already"):
        upload.add(folder, "more")
    with pytest.raises(ValueError, match="world size"):
        run.checkpoints.begin(1, rank=2, world_size=2)


def test_files_that_are_there_already_are_not_transferred_again(
    run: RunDirectory, storage: Storage, tree: Tree, tmp_path: Path
) -> None:
    save(run, 1, tree(big=PART, a=b"1"))
    found = run.checkpoints.newest()
    assert found is not None
    dest = found.download(tmp_path / "back")
    (dest / "state/a").write_bytes(b"2")
    assert storage.transfer.download(found.manifest.files, run.checkpoints.folder / "step-00000001", dest) == 1
    assert (dest / "state/a").read_bytes() == b"1"
