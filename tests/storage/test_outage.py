"""The store goes away, stalls, lies or is slow: training goes on, nothing is lost, errors come in bounded time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from time import monotonic

import pytest
from pinnace.storage import (
    Committed,
    Delayed,
    NotFound,
    Patience,
    RunDirectory,
    S3Settings,
    Storage,
    StorageUnavailable,
)
from pinnace.storage.insistence import Insistence

from e2e.faults.s3proxy import Fault, S3Proxy
from e2e.s3 import S3Server, s3_server
from e2e.stored import PART, Tree, contents, raw_client, save


@pytest.fixture
def own_s3() -> Iterator[S3Server]:
    """A server that a test may kill."""
    with s3_server() as server:
        yield server


def test_uploads_survive_a_killed_server(own_s3: S3Server, settings: S3Settings, tree: Tree, tmp_path: Path) -> None:
    raw_client(own_s3.endpoint).create_bucket(Bucket=settings.bucket)
    events: list[object] = []
    storage = Storage(replace(settings, endpoint=own_s3.endpoint))
    run = storage.run("r", listener=events.append, retry_cap=0.2)
    folder = tree(big=2 * PART)
    save(run, 1, folder)
    events.clear()
    own_s3.stop()
    began = monotonic()
    for step in (2, 3, 4):
        upload = run.checkpoints.begin(step)
        upload.add(folder, "state")
        upload.commit()
        run.checkpoints.retain(last=10)
    assert monotonic() - began < 1, "saving waits for the store"
    with pytest.raises(StorageUnavailable, match=r"steps 2, 3, 4: .*no answer from"):
        run.checkpoints.wait(4)
    assert run.checkpoints.pending_bytes == 3 * sum(len(content) for content in contents(folder).values())
    own_s3.start()
    run.checkpoints.wait(120)
    assert [found.step for found in run.checkpoints.all()] == [1, 2, 3, 4]
    newest = run.checkpoints.newest()
    assert newest is not None
    assert contents(newest.download(tmp_path / "back") / "state") == contents(folder)
    assert [event.step for event in events if isinstance(event, Delayed)] == [2]
    assert [event.checkpoint.step for event in events if isinstance(event, Committed)] == [2, 3, 4]


@pytest.mark.parametrize(
    "fault",
    [
        Fault("busy", times=5),
        Fault("cut", after=40, times=5),
        Fault("reset", after=0, times=5),
        Fault("stall", times=2),
    ],
    ids=lambda fault: fault.kind,
)
def test_uploads_survive_broken_answers(proxied: Storage, proxy: S3Proxy, tree: Tree, fault: Fault) -> None:
    run = proxied.run("r", retry_cap=0.1)
    proxy.fault = fault
    save(run, 1, tree(big=2 * PART))
    assert fault.hits == fault.times
    newest = run.checkpoints.newest()
    assert newest is not None
    assert newest.step == 1


@pytest.mark.parametrize("kind", ["cut", "reset", "flip"])
def test_downloads_survive_broken_bodies(
    run: RunDirectory, proxied: Storage, proxy: S3Proxy, tree: Tree, tmp_path: Path, kind: str
) -> None:
    folder = tree(big=2 * PART)
    save(run, 1, folder)
    found = proxied.run("ns/sftjob/job/12345678").checkpoints.newest()
    assert found is not None
    proxy.fault = Fault(kind, after=PART // 2, times=1)  # type: ignore[arg-type] # parametrised
    # The client keeps connections: only new ones meet the fault.
    fresh = Storage(proxied.settings).run("ns/sftjob/job/12345678").checkpoints.at(1)
    dest = fresh.download(tmp_path / "back")
    assert contents(dest / "state") == contents(folder)
    assert not list(dest.rglob("*.part"))


def test_a_body_that_always_breaks_ends_in_a_typed_error(
    run: RunDirectory, proxied: Storage, proxy: S3Proxy, tree: Tree, tmp_path: Path
) -> None:
    save(run, 1, tree(big=2 * PART))
    found = proxied.run("ns/sftjob/job/12345678").checkpoints.newest()
    assert found is not None
    proxy.fault = Fault("cut", after=10_000)
    fresh = Storage(proxied.settings)
    with pytest.raises(StorageUnavailable, match="was cut or damaged on its way"):
        fresh.transfer.download(found.manifest.files, run.checkpoints.folder / "step-00000001", tmp_path / "back")
    assert not list((tmp_path / "back").rglob("*.part"))


def test_a_slow_store_is_only_slow(
    run: RunDirectory, proxied: Storage, proxy: S3Proxy, tree: Tree, tmp_path: Path
) -> None:
    folder = tree(a=b"x" * 400_000)
    save(run, 1, folder)
    proxy.fault = Fault("slow", after=200_000)
    found = proxied.run("ns/sftjob/job/12345678").checkpoints.newest()
    assert found is not None
    assert contents(found.download(tmp_path / "back") / "state") == contents(folder)


def test_foreground_requests_give_up_in_bounded_time(proxied: Storage, proxy: S3Proxy, tree: Tree) -> None:
    impatient = Storage(proxied.settings, insist=Insistence(give_up_after=1, cap=0.1))
    proxy.fault = Fault("busy")
    with pytest.raises(StorageUnavailable, match="503 SlowDown"):
        impatient.write(impatient.settings.root / "x", b"1")


def test_a_checkpoint_removed_under_a_reader_says_so(
    run: RunDirectory, settings: S3Settings, tree: Tree, tmp_path: Path
) -> None:
    folder = tree()
    save(run, 1, folder)
    found = Storage(settings).run("ns/sftjob/job/12345678").checkpoints.newest()
    assert found is not None
    save(run, 2, folder)
    run.checkpoints.retain(last=1, purge=True)
    run.checkpoints.wait(30)
    with pytest.raises(NotFound, match=r"removed while it was read: use newest\(\)"):
        found.download(tmp_path / "back")


@pytest.mark.parametrize(
    ("change", "remedy"),
    [
        ({"access_key": "nobody"}, "the access key is unknown to the server: correct accessKeyId"),
        ({"secret_key": "wrong-secret-value"}, "the secret key does not belong to the access key"),
        ({"bucket": "there-is-none"}, "the bucket does not exist: create it"),
        ({"endpoint": "http://127.0.0.1:1"}, "no answer from http://127.0.0.1:1 .*check that the endpoint is right"),
        ({"endpoint": "http://host.invalid"}, "no answer from http://host.invalid"),
    ],
)
def test_misconfiguration_is_named_with_its_remedy(settings: S3Settings, change: dict[str, str], remedy: str) -> None:
    wrong = Storage(replace(settings, **change))  # type: ignore[arg-type] # parametrised
    with pytest.raises(StorageUnavailable, match=remedy) as unavailable:
        wrong.check()
    assert "wrong-secret-value" not in str(unavailable.value)
    assert unavailable.value.transient == ("endpoint" in change)


def test_an_endpoint_that_never_answers_is_given_up(proxied: Storage, proxy: S3Proxy) -> None:
    proxy.fault = Fault("stall")
    impatient = Storage(replace(proxied.settings, patience=Patience(connect=1, read=0.3, attempts=2)))
    with pytest.raises(StorageUnavailable, match="ReadTimeoutError"):
        impatient.store.require_bucket(impatient.settings.bucket)


def test_a_healthy_store_passes_the_check_and_keeps_no_probe(storage: Storage) -> None:
    storage.check()
    assert list(storage.list(storage.settings.root)) == []
