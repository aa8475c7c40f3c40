"""The one small interface between Pinnace and an object store."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from pinnace.storage.uri import S3Uri


@dataclass(frozen=True)
class StoredObject:
    """One object of a listing; `size` in bytes. `tag` (ETag) changes when its content does."""

    uri: S3Uri
    size: int
    tag: str = ""


@dataclass(frozen=True)
class StoredPart:
    """One part of an unfinished multipart upload."""

    number: int
    size: int
    tag: str


class ObjectStore(Protocol):
    """Primitive requests. Each is retried a bounded number of times and safe to call from many threads.

    All raise `StorageUnavailable`; reads of something absent raise `NotFound`.
    """

    def require_bucket(self, bucket: str) -> None:
        """Raises `StorageUnavailable` if the bucket does not exist or may not be used."""

    def put(self, uri: S3Uri, body: bytes, *, if_absent: bool = False) -> None:
        """Writes one object, checksummed. With `if_absent` raises `Conflict` if there is one already."""

    def read(self, uri: S3Uri, start: int = 0, end: int | None = None) -> bytes:
        """Bytes `start` to `end` (exclusive; None: to the end). A body that breaks off is asked for again."""

    def read_into(self, uri: S3Uri, start: int, into: memoryview, *, tag: str = "") -> None:
        """Fills `into` with the bytes from `start`, and raises `OutOfRange` if the object ends before.

        With `tag` raises `Conflict` if the object is not the one with that tag any more.
        """

    def size(self, uri: S3Uri) -> int:
        """Length in bytes."""

    def look(self, uri: S3Uri) -> StoredObject:
        """Size and tag of one object."""

    def list(self, folder: S3Uri) -> Iterator[StoredObject]:
        """All objects below a folder, in key order."""

    def folders(self, folder: S3Uri) -> Iterator[str]:
        """Names of the direct subfolders."""

    def delete(self, uris: Iterable[S3Uri]) -> None:
        """Deletes; what is absent already is no error."""

    def begin_parts(self, uri: S3Uri) -> str:
        """Starts a multipart upload and returns its id."""

    def put_part(self, uri: S3Uri, upload_id: str, number: int, body: bytes | bytearray) -> str:
        """Writes part `number` (from 1), checksummed, and returns its tag."""

    def finish_parts(self, uri: S3Uri, upload_id: str, tags: Sequence[str]) -> None:
        """Makes the object visible, from parts 1…n with these tags."""

    def abort_parts(self, uri: S3Uri, upload_id: str) -> None:
        """Forgets an unfinished multipart upload."""

    def list_parts(self, uri: S3Uri, upload_id: str) -> Sequence[StoredPart]:
        """The parts that an unfinished multipart upload has, by number. Raises `NotFound` if there is none."""

    def unfinished_parts(self, folder: S3Uri) -> Iterator[tuple[S3Uri, str]]:
        """Multipart uploads that were begun below a folder and neither finished nor aborted."""
