"""The door to everything that is stored."""

from __future__ import annotations

import io
import os
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace as changed
from pathlib import Path

from pinnace.storage import artifacts
from pinnace.storage.artifacts import Ancestor, Artifact, Published
from pinnace.storage.checkpoints import Checkpoints, Event
from pinnace.storage.errors import StorageUnavailable
from pinnace.storage.insistence import Insistence
from pinnace.storage.objects import ObjectStore, StoredObject
from pinnace.storage.reader import open_object
from pinnace.storage.s3 import S3Store
from pinnace.storage.settings import Patience, S3Settings
from pinnace.storage.transfer import Transfer
from pinnace.storage.uri import S3Uri

_CHECK_PATIENCE = Patience(connect=3, read=10, attempts=3)


class RunDirectory:
    """Where one run keeps its things: `checkpoints`, `output`, `history`."""

    def __init__(
        self, storage: Storage, uri: S3Uri, *, session: str, listener: Callable[[Event], None], retry_cap: float
    ) -> None:
        self.uri = uri
        self.output = uri / "output"
        self.history = uri / "history"
        self.checkpoints = Checkpoints(
            storage.transfer, uri / "checkpoints", session=session, listener=listener, retry_cap=retry_cap
        )
        self._storage = storage

    def published(self) -> Published | None:
        """The run's output, if an earlier attempt has published it already."""
        return self._storage.published(self.output)

    def write_history(self, name: str, content: bytes) -> str:
        """Writes (or overwrites) `history/<name>` and returns its address."""
        self._storage.write(self.history / name, content)
        return str(self.history / name)


class Storage:
    """One bucket of an object store, as training stages use it. Thread-safe; may be pickled and used after a fork."""

    def __init__(self, settings: S3Settings, *, insist: Insistence | None = None) -> None:
        self.settings = settings
        self.store: ObjectStore = S3Store(settings)
        self.transfer = Transfer(self.store, part_bytes=settings.part_bytes, concurrency=settings.concurrency)
        self._insist = insist or Insistence()

    def __reduce__(self) -> tuple[type[Storage], tuple[S3Settings]]:
        return Storage, (self.settings,)

    @classmethod
    def from_env(cls, environ: Mapping[str, str] = os.environ) -> Storage:
        """From the variables of docs/contracts.md §2; asks nobody. `StorageUnavailable` names what is missing."""
        return cls(S3Settings.from_env(environ))

    def check(self) -> None:
        """Proves that a run can be stored: bucket, then write, read and delete of a probe object.

        Raises `StorageUnavailable` with the remedy.
        """
        store = S3Store(changed(self.settings, patience=_CHECK_PATIENCE))
        store.require_bucket(self.settings.bucket)
        probe, content = self.settings.root / f".pinnace-probe/{secrets.token_hex(8)}", secrets.token_bytes(16)
        store.put(probe, content)
        if store.read(probe) != content:
            raise StorageUnavailable(
                f"{probe} does not read back what was written: use a strongly consistent S3 server"
            )
        store.delete([probe])

    def run(
        self,
        path: str,
        *,
        session: str | None = None,
        listener: Callable[[Event], None] = lambda _: None,
        retry_cap: float = 30,
    ) -> RunDirectory:
        """The directory of one run.

        Args:
            path: `Job.run_path`, `<namespace>/<kind>/<name>/<uid8>`.
            session: the attempt, equal on all ranks; default `PINNACE_ATTEMPT`.
            listener: told of committed, delayed, failed and skipped checkpoints, from a background thread.
            retry_cap: longest wait between two attempts to upload, in seconds.
        """
        return RunDirectory(
            self,
            self.settings.root / path,
            session=os.environ.get("PINNACE_ATTEMPT", "0") if session is None else session,
            listener=listener,
            retry_cap=retry_cap,
        )

    def publish(
        self,
        local_dir: Path,
        to: S3Uri | str,
        *,
        kind: str = "model",
        base_model: str | None = None,
        lineage: Sequence[Ancestor] = (),
        replace: bool = True,
    ) -> Published:
        """Uploads a folder as an artifact: files, `artifact.json`, then `manifest.json`.

        An artifact that is there already is replaced (its manifest goes first), or refused with `replace=False`.

        Raises:
            Conflict: there is one and `replace` is false.
            NotFound: the folder is empty.
            InvalidName, StorageUnavailable
        """
        return artifacts.publish(
            self.transfer,
            local_dir,
            _uri(to),
            kind=kind,
            base_model=base_model,
            lineage=lineage,
            replace=replace,
            insist=self._insist,
        )

    def fetch(self, uri: S3Uri | str, dest: Path, digest: str | None = None) -> Published:
        """Downloads an artifact or checkpoint, verified; files that are there already with the right content are kept.

        Raises:
            NotFound, Incomplete: nothing there, or no manifest.
            DamagedFile: a file differs from the manifest, or the manifest is not `digest`.
            DiskFull, StorageUnavailable
        """
        return artifacts.fetch(self.transfer, _uri(uri), dest, digest)

    def copy(
        self, source: S3Uri | str, to: S3Uri | str, *, copied: Callable[[int], None] = lambda _: None
    ) -> Published:
        """The same artifact, byte for byte and with the same digest, at another address; verified on the way.

        Args:
            copied: told of the bytes of each part; what it raises ends the copy, which can be begun again.

        Raises:
            NotFound, Incomplete: nothing there, or no manifest.
            DamagedFile, StorageUnavailable
        """
        return artifacts.copy(self.store, _uri(source), _uri(to), insist=self._insist, copied=copied)

    def show(self, uri: S3Uri | str) -> Artifact:
        """Manifest and description of an artifact."""
        return artifacts.show(self.store, _uri(uri))

    def published(self, uri: S3Uri | str) -> Published | None:
        """Address and digest of an artifact, None if there is none that is complete."""
        manifest = artifacts.present(self.store, _uri(uri))
        return None if manifest is None else Published(str(uri), manifest.digest)

    def open(self, uri: S3Uri | str) -> io.BufferedReader:
        """A seekable stream of one object. Raises `NotFound`."""
        return open_object(self.store, _uri(uri))

    def list(self, uri: S3Uri | str) -> Iterator[StoredObject]:
        """All objects below a folder, in key order."""
        return self.store.list(_uri(uri))

    def ranged(self, uri: S3Uri | str, start: int, end: int) -> bytes:
        """Bytes `start` to `end` (exclusive) of one object; fewer if it ends before."""
        return self.store.read(_uri(uri), start, end)

    def write(self, uri: S3Uri | str, content: bytes) -> None:
        """Writes one small object."""
        self._insist(lambda: self.store.put(_uri(uri), content))


def _uri(uri: S3Uri | str) -> S3Uri:
    return uri if isinstance(uri, S3Uri) else S3Uri.parse(uri)
