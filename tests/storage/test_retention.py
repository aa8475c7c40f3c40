"""The newest and the best stay; what is removed stops existing before its files go."""

from __future__ import annotations

import secrets
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from pinnace.storage import DamagedFile, NotFound, RunDirectory, S3Settings, Storage
from pinnace.storage.manifest import Manifest, now
from pinnace.storage.retention import superseded

from e2e.stored import PART, Tree, contents, keys, save


def _manifest(step: int, score: str | None) -> Manifest:
    return Manifest(kind="checkpoint", step=step, score=score, files=(), time=now())


@pytest.mark.parametrize(
    ("scores", "last", "best", "protected", "removed"),
    [
        ({1: None, 2: None, 3: None}, 2, 0, (), [1]),
        ({1: None, 2: None, 3: None}, 0, 0, (), [1, 2]),
        ({1: None}, 0, 0, (), []),
        ({1: "0.1", 2: "0.9", 3: "0.5", 4: "0.2"}, 1, 1, (), [1, 3]),
        ({1: "-2", 2: "-1e-3", 3: "-1"}, 1, 1, (), [1]),
        ({1: "9", 2: "10", 3: "1"}, 1, 1, (), [1]),
        ({1: "1", 2: "1", 3: "0"}, 1, 1, (), [1]),
        ({1: None, 2: "1", 3: None}, 1, 2, (), [1]),
        ({1: None, 2: None, 3: None}, 1, 0, (1,), [2]),
        ({}, 2, 1, (), []),
    ],
)
def test_what_goes(
    scores: dict[int, str | None], last: int, best: int, protected: tuple[int, ...], removed: list[int]
) -> None:
    manifests = [_manifest(step, score) for step, score in scores.items()]
    assert superseded(manifests, last=last, best=best, protected=protected) == removed


def test_last_and_best_stay(run: RunDirectory, settings: S3Settings, raw: Any, tree: Tree) -> None:
    folder = tree()
    for step, score in enumerate(["-3", "-1", "-2", "-2.5", "-4"], 1):
        save(run, step, folder, score=score)
    run.checkpoints.retain(last=2, best=1)
    run.checkpoints.wait(30)
    assert [found.step for found in run.checkpoints.all()] == [2, 4, 5]
    best = run.checkpoints.best()
    assert best is not None
    assert best.step == 2
    # The files of what was condemned are still there for readers; the next pass takes them.
    assert [skipped.step for skipped in run.checkpoints.damaged] == [1, 3]
    run.checkpoints.retain(last=2, best=1)
    run.checkpoints.wait(30)
    assert not [key for key in keys(raw, settings.bucket) if "step-00000001" in key or "step-00000003" in key]


def test_purge_leaves_nothing_behind(run: RunDirectory, settings: S3Settings, raw: Any, tree: Tree) -> None:
    folder = tree()
    for step in (1, 2, 3):
        save(run, step, folder)
    run.checkpoints.retain(last=1, purge=True)
    run.checkpoints.wait(30)
    assert all("step-00000003" in key for key in keys(raw, settings.bucket))


def test_retention_waits_for_uploads_and_spares_unfinished_ones(storage: Storage, tree: Tree) -> None:
    ranks = [storage.run("r", session="1", retry_cap=0.05).checkpoints for _ in range(2)]
    folder = tree()
    uploads = {(step, rank): ranks[rank].begin(step, rank=rank, world_size=2) for step in (1, 2) for rank in range(2)}
    # Step 1 waits for rank 1; step 2 is complete.
    for key, upload in uploads.items():
        upload.add(folder, f"state/{key[1]}")
        if key != (1, 1):
            upload.commit()
    while ranks[0].newest() is None:
        pass
    ranks[0].retain(last=1, purge=True)
    uploads[1, 1].commit()
    ranks[1].wait(30)
    ranks[0].wait(30)
    assert [found.step for found in ranks[0].all()] == [2]


def test_sixteen_readers_while_retention_runs(
    run: RunDirectory, settings: S3Settings, tree: Tree, tmp_path: Path
) -> None:
    folder = tree(big=PART, a=b"1")
    expected = contents(folder)
    save(run, 1, folder)
    stop = threading.Event()

    def read(reader: int) -> tuple[int, int]:
        checkpoints = Storage(settings).run("ns/sftjob/job/12345678").checkpoints
        good = gone = 0
        while not stop.is_set() or not good:
            found = checkpoints.newest()
            assert found is not None, "there is always one"
            dest = tmp_path / f"reader{reader}-{secrets.token_hex(4)}"
            try:
                assert contents(found.download(dest) / "state") == expected
                good += 1
            except NotFound as error:
                assert "use newest() again" in str(error)
                gone += 1
            except DamagedFile as error:
                raise AssertionError("a reader took retention for damage") from error
        return good, gone

    with ThreadPoolExecutor(16) as readers:
        futures = [readers.submit(read, reader) for reader in range(16)]
        try:
            for step in range(2, 8):
                save(run, step, folder)
                run.checkpoints.retain(last=1, purge=True)
                run.checkpoints.wait(60)
        finally:
            stop.set()
        results = [future.result() for future in futures]
    assert all(good for good, _ in results)
