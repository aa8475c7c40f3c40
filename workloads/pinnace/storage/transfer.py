"""Files to objects and back: parallel, bounded in memory, every byte read once and hashed on the way."""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from pinnace.storage.errors import DamagedFile, DiskFull, InvalidName, NotFound, StorageUnavailable
from pinnace.storage.insistence import Insistence
from pinnace.storage.manifest import MANIFEST, FileEntry
from pinnace.storage.objects import ObjectStore
from pinnace.storage.uri import S3Uri, check_path
from pinnace.storage.workers import Workers, gather

MAX_PARTS = 10_000  # of one object, by the S3 API
_SPARE_BUFFERS = 4


@dataclass(frozen=True)
class LocalFile:
    """A file on disk and the path it gets inside a checkpoint or artifact."""

    source: Path
    path: str


def tree(folder: Path, to: str = "") -> list[LocalFile]:
    """All files below `folder`, as `to/…`, sorted. Symbolic links to files are followed.

    Raises `InvalidName` for names that can't be stored, links to folders and devices: nothing is left out silently.
    """
    found: list[LocalFile] = []
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder} is not a folder")
    for base, folders, names in os.walk(folder):
        for name in folders:
            if (Path(base) / name).is_symlink():
                raise InvalidName(f"{Path(base) / name} is a link to a folder: copy the folder instead")
        for name in names:
            source = Path(base) / name
            if not source.is_file():
                raise InvalidName(f"{source} is no regular file, or a broken link: remove it")
            inside = source.relative_to(folder).as_posix()
            path = check_path(f"{to}/{inside}" if to else inside)
            if path == MANIFEST:
                raise InvalidName(f"{source}: the name {MANIFEST} is reserved at the top: rename the file")
            found.append(LocalFile(source, path))
    return sorted(found, key=lambda file: file.path)


class Transfer:
    """Moves files for one `ObjectStore`.

    Memory is bounded by (concurrency + 4) · part_bytes, whatever the number and size of files (parts grow beyond
    part_bytes only for files over 10 000 parts: 80 GB with 8 MiB).
    """

    def __init__(self, store: ObjectStore, *, part_bytes: int, concurrency: int) -> None:
        self.store = store
        self._part_bytes = part_bytes
        self._concurrency = concurrency
        self._buffers = threading.Semaphore(concurrency + _SPARE_BUFFERS)

    def upload(
        self,
        files: Sequence[LocalFile],
        to: S3Uri,
        *,
        insist: Insistence,
        done: Callable[[FileEntry], None] = lambda _: None,
    ) -> list[FileEntry]:
        """Uploads files below `to` and returns their entries in the same order.

        Args:
            files: they must not change until this returns.
            to: the folder in the store.
            insist: how long to repeat a request while the store is down.
            done: called with each entry as soon as the file is durable.

        Raises:
            StorageUnavailable: at once if it is not transient, else when `insist` gives up.
            OSError: a local file can't be read.
        """

        def one(file: LocalFile) -> FileEntry:
            entry = self._upload(file, to / file.path, parts, insist)
            done(entry)
            return entry

        with (
            Workers(self._concurrency, "upload-part") as parts,
            Workers(min(self._concurrency, len(files)), "upload-file") as workers,
        ):
            return gather([workers.submit(one, file) for file in files])

    def _upload(self, file: LocalFile, uri: S3Uri, parts: Workers, insist: Insistence) -> FileEntry:
        part_bytes = max(self._part_bytes, -(-file.source.stat().st_size // MAX_PARTS))
        with file.source.open("rb", buffering=0) as source:
            self._buffers.acquire()
            body = _fill(source, part_bytes)
            if len(body) < part_bytes:
                try:
                    insist(lambda: self.store.put(uri, body))
                finally:
                    self._buffers.release()
                return FileEntry(path=file.path, size=len(body), sha256=hashlib.sha256(body).hexdigest())
            return self._upload_parts(file.path, source, body, uri, parts, insist)

    def _upload_parts(
        self, path: str, source: IO[bytes], body: bytes, uri: S3Uri, parts: Workers, insist: Insistence
    ) -> FileEntry:
        """`body` is the first part, read already and counted in `_buffers`."""
        part_bytes, size, digest = len(body), 0, hashlib.sha256()
        tags: list[Future[str]] = []
        try:
            upload_id = insist(lambda: self.store.begin_parts(uri))
        except BaseException:
            self._buffers.release()
            raise
        try:
            while body:
                tag = parts.submit(self._part, uri, upload_id, len(tags) + 1, body, insist)
                tag.add_done_callback(lambda _: self._buffers.release())
                tags.append(tag)
                digest.update(body)
                size += len(body)
                if any(tag.done() and tag.exception() for tag in tags):
                    break
                self._buffers.acquire()
                body = _fill(source, part_bytes)
            else:
                self._buffers.release()
            gathered = gather(tags)
            insist(lambda: self.store.finish_parts(uri, upload_id, gathered))
        except NotFound:
            # The server lost the upload (a restart, a clean-up rule): the file has to start again.
            raise StorageUnavailable(f"{uri}: the server forgot the unfinished upload", transient=True) from None
        except BaseException:
            with suppress(StorageUnavailable):  # `Checkpoints.rewind` aborts what is left over
                self.store.abort_parts(uri, upload_id)
            raise
        return FileEntry(path=path, size=size, sha256=digest.hexdigest())

    def _part(self, uri: S3Uri, upload_id: str, number: int, body: bytes, insist: Insistence) -> str:
        return insist(lambda: self.store.put_part(uri, upload_id, number, body))

    def download(self, files: Sequence[FileEntry], source: S3Uri, dest: Path) -> int:
        """Downloads files from the folder `source` to `dest` and returns the bytes transferred.

        Each is written under a temporary name and renamed once size and SHA-256 are right. A file that is there already
        with the right content is not transferred again.

        Raises:
            DamagedFile: naming the first file that is missing or differs from its entry (after a second try).
            DiskFull: before anything is transferred.
            StorageUnavailable: the store stopped answering.
        """
        dest.mkdir(parents=True, exist_ok=True)
        with Workers(min(self._concurrency, max(1, len(files))), "download-file") as workers:
            missing = [
                file
                for file, there in zip(
                    files, gather([workers.submit(_is_there, dest / f.path, f) for f in files]), strict=True
                )
                if not there
            ]
            needed, free = sum(file.size for file in missing), shutil.disk_usage(dest).free
            if needed > free:
                raise DiskFull(
                    f"{source} needs {needed >> 20} MiB at {dest}, {free >> 20} MiB are free: give the volume more room"
                )
            with Workers(self._concurrency, "download-part") as parts:
                gather(
                    [
                        workers.submit(self._download, file, source / file.path, dest / file.path, parts)
                        for file in missing
                    ]
                )
        return needed

    def _download(self, file: FileEntry, uri: S3Uri, dest: Path, parts: Workers) -> None:
        dest.parent.mkdir(parents=True, exist_ok=True)
        # Short, because the name itself may already be as long as the file system allows.
        partial = dest.parent / f".{secrets.token_hex(8)}.part"
        try:
            try:
                self._fetch(file, uri, partial, parts)
            except DamagedFile:
                # What was damaged on its way, not at rest, is right the second time.
                self._fetch(file, uri, partial, parts)
            partial.replace(dest)
        finally:
            partial.unlink(missing_ok=True)

    def _fetch(self, file: FileEntry, uri: S3Uri, partial: Path, parts: Workers) -> None:
        digest, size = hashlib.sha256(), 0
        # One byte more than the manifest promises shows an object that is too long.
        starts = deque(range(0, file.size + 1, self._part_bytes))
        window: deque[Future[bytes]] = deque()
        with partial.open("wb", buffering=0) as target:
            try:
                while starts or window:
                    # Never wait for a buffer while holding filled ones: all files could do so at once, for ever.
                    while starts and len(window) < self._concurrency and self._buffers.acquire(blocking=not window):
                        start = starts.popleft()
                        window.append(
                            parts.submit(self.store.read, uri, start, min(start + self._part_bytes, file.size + 1))
                        )
                    part = window.popleft()
                    try:
                        body = part.result()
                    finally:
                        self._buffers.release()
                    target.write(body)
                    digest.update(body)
                    size += len(body)
            except NotFound:
                raise DamagedFile(file.path, f"is missing ({uri})") from None
            finally:
                for part in window:
                    if not part.cancel():
                        part.exception()
                    self._buffers.release()
        if size != file.size:
            raise DamagedFile(
                file.path,
                f"has {'more than ' if size > file.size else ''}{min(size, file.size)} bytes, "
                f"the manifest says {file.size} ({uri})",
            )
        if digest.hexdigest() != file.sha256:
            raise DamagedFile(file.path, f"its SHA-256 is not the manifest's ({uri})")


def hash_file(path: Path) -> FileEntry:
    """The entry of a local file, with its name as path."""
    with path.open("rb") as source:
        digest = hashlib.file_digest(source, "sha256").hexdigest()
        return FileEntry(path=path.name, size=source.tell(), sha256=digest)


def _is_there(path: Path, wanted: FileEntry) -> bool:
    if not path.is_file() or path.stat().st_size != wanted.size:
        return False
    return hash_file(path).sha256 == wanted.sha256


def _fill(source: IO[bytes], size: int) -> bytes:
    """Reads `size` bytes, less only at the end of the file: a raw read may return fewer."""
    blocks: list[bytes] = []
    while size and (block := source.read(size)):
        blocks.append(block)
        size -= len(block)
    return blocks[0] if len(blocks) == 1 else b"".join(blocks)
