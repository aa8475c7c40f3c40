"""kill -9 in the middle of an upload: the half checkpoint is invisible, and the next run cleans up and succeeds."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pinnace.storage import RunDirectory, S3Settings

from e2e.stored import PART, Tree, contents, keys, save

# Uploads step 2; kills itself before or after its n-th write to the store.
_CHILD = """
import itertools, os, sys
from pathlib import Path
from pinnace.storage import S3Settings, Storage
bucket, endpoint, access, secret, part, folder, when, at = sys.argv[1:]
storage = Storage(S3Settings(bucket=bucket, prefix="team/a", endpoint=endpoint, access_key=access, secret_key=secret,
                             part_bytes=int(part), concurrency=2))
writes = itertools.count(1)
def deadly(request):
    def call(*args, **kwargs):
        mine = next(writes)
        if when == "before" and mine == int(at):
            os.kill(os.getpid(), 9)
        answer = request(*args, **kwargs)
        if when == "after" and mine == int(at):
            os.kill(os.getpid(), 9)
        return answer
    return call
for name in ("put", "begin_parts", "put_part", "finish_parts"):
    setattr(storage.store, name, deadly(getattr(storage.store, name)))
checkpoints = storage.run("ns/sftjob/job/12345678", session="0").checkpoints
print("begins", flush=True)
upload = checkpoints.begin(2)
upload.add(Path(folder), "state")
upload.commit()
checkpoints.wait()
"""


def _start(settings: S3Settings, folder: Path, when: str = "never", at: int = 0) -> subprocess.Popen[str]:
    access, secret = settings.access_key or "", settings.secret_key or ""
    arguments = [
        settings.bucket,
        settings.endpoint or "",
        access,
        secret,
        str(settings.part_bytes),
        str(folder),
        when,
        str(at),
    ]
    return subprocess.Popen([sys.executable, "-c", _CHILD, *arguments], stdout=subprocess.PIPE, text=True)


def _check_and_clean(run: RunDirectory, folder: Path, dest: Path) -> None:
    """Step 2 is there whole or not at all; afterwards only step 1 is left."""
    found = run.checkpoints.newest()
    assert found is not None
    if found.step == 2:
        assert contents(found.download(dest) / "state") == contents(folder)
    else:
        assert found.step == 1
    run.checkpoints.rewind(run.checkpoints.at(1))


@pytest.mark.slow
@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_at_every_write(
    run: RunDirectory, settings: S3Settings, raw: Any, tree: Tree, tmp_path: Path, when: str
) -> None:
    save(run, 1, tree("one"))
    folder = tree("two", big=2 * PART, a=b"1", b=b"2")
    visible = []
    at = 0
    killed = True
    while killed:
        at += 1
        with _start(settings, folder, when, at) as child:
            killed = child.wait() == -signal.SIGKILL
        found = run.checkpoints.newest()
        assert found is not None
        if found.step == 2:
            visible.append(at)
        _check_and_clean(run, folder, tmp_path / f"back{at}")
        assert not [key for key in keys(raw, settings.bucket) if "step-00000002" in key]
        assert not raw.list_multipart_uploads(Bucket=settings.bucket).get("Uploads")
    # Two small files, one of three parts (begin, 3, finish), the rank's part, the manifest: nine writes.
    assert at - 1 == 9
    assert visible == ([10] if when == "before" else [9, 10])


@pytest.mark.slow
def test_killed_at_random_moments(run: RunDirectory, settings: S3Settings, tree: Tree, tmp_path: Path) -> None:
    save(run, 1, tree("one"))
    folder = tree("two", big=6 * PART, a=b"1")
    chance = random.Random(7)
    for number in range(6):
        with _start(settings, folder) as child:
            assert child.stdout is not None
            assert child.stdout.readline() == "begins\n"
            try:
                child.wait(chance.uniform(0, 0.6))
            except subprocess.TimeoutExpired:
                child.kill()
        _check_and_clean(run, folder, tmp_path / f"back{number}")
    save(run, 2, folder)
    _check_and_clean(run, folder, tmp_path / "last")
