"""Local folders through the interface of an object store, so that a merge needs no S3."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pinnace.storage.errors import Conflict, InvalidName, NotFound, OutOfRange
from pinnace.storage.objects import StoredObject, StoredPart
from pinnace.storage.uri import S3Uri

_UPLOADS = ".uploads"  # where unfinished files are, next to what they become


@dataclass(frozen=True, order=True)
class LocalUri(S3Uri):
    """A path in the place of an address: the key is the absolute path without its leading slash."""

    @classmethod
    def of(cls, path: Path) -> LocalUri:
        """The address of a path."""
        return cls("", str(path.absolute()).strip("/"))

    def __truediv__(self, path: str) -> LocalUri:
        return LocalUri("", super().__truediv__(path).key)

    @property
    def path(self) -> Path:
        return Path("/", self.key)

    def __str__(self) -> str:
        return str(self.path)


class LocalStore:
    """`ObjectStore` on a file system. What is written appears whole, by renaming. Addresses are `LocalUri`s."""

    def require_bucket(self, bucket: str) -> None:
        """There is always a file system."""

    def put(self, uri: S3Uri, body: bytes, *, if_absent: bool = False) -> None:
        path = _path(uri)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{secrets.token_hex(8)}.part")
        try:
            partial.write_bytes(body)
            if if_absent:
                os.link(partial, path)
            else:
                partial.replace(path)
        except FileExistsError:
            raise Conflict(f"{path} is there already") from None
        finally:
            partial.unlink(missing_ok=True)

    def read(self, uri: S3Uri, start: int = 0, end: int | None = None) -> bytes:
        with _opened(uri) as fd:
            size = os.fstat(fd).st_size
            return os.pread(fd, max(0, (size if end is None else min(end, size)) - start), start)

    def read_into(self, uri: S3Uri, start: int, into: memoryview, *, tag: str = "") -> None:
        with _opened(uri) as fd:
            if tag and _tag(os.fstat(fd)) != tag:
                raise Conflict(f"{uri} was changed")
            came = 0
            while came < len(into):
                piece = os.preadv(fd, [into[came:]], start + came)
                if not piece:
                    raise OutOfRange(f"{uri}: it ends before byte {start + len(into)}")
                came += piece

    def size(self, uri: S3Uri) -> int:
        return self.look(uri).size

    def look(self, uri: S3Uri) -> StoredObject:
        try:
            found = _path(uri).stat()
        except (FileNotFoundError, NotADirectoryError):
            raise NotFound(f"{uri}: there is no such file") from None
        return StoredObject(uri, found.st_size, _tag(found))

    def list(self, folder: S3Uri) -> Iterator[StoredObject]:
        root = _path(folder)
        files = (path for path in sorted(root.rglob("*")) if path.is_file() and _UPLOADS not in path.parts)
        for path in files:
            yield self.look(LocalUri.of(path))

    def folders(self, folder: S3Uri) -> Iterator[str]:
        root = _path(folder)
        if root.is_dir():
            yield from sorted(path.name for path in root.iterdir() if path.is_dir() and path.name != _UPLOADS)

    def delete(self, uris: Iterable[S3Uri]) -> None:
        for uri in uris:
            _path(uri).unlink(missing_ok=True)

    def begin_parts(self, uri: S3Uri) -> str:
        upload_id = secrets.token_hex(8)
        _parts(uri, upload_id).mkdir(parents=True)
        return upload_id

    def put_part(self, uri: S3Uri, upload_id: str, number: int, body: bytes | bytearray) -> str:
        parts = _parts(uri, upload_id)
        partial = parts / f".{number:05d}"
        try:
            partial.write_bytes(body)
            partial.replace(parts / f"{number:05d}")
        except FileNotFoundError:
            raise NotFound(f"{uri}: there is no such upload") from None
        return f"{number}:{len(body)}"

    def finish_parts(self, uri: S3Uri, upload_id: str, tags: Sequence[str]) -> None:
        parts = _parts(uri, upload_id)
        if not parts.is_dir():
            raise NotFound(f"{uri}: there is no such upload")
        whole = parts / "whole"
        with whole.open("wb") as target:
            for number in range(1, len(tags) + 1):
                with (parts / f"{number:05d}").open("rb") as source:
                    shutil.copyfileobj(source, target, 8 << 20)
        whole.replace(_path(uri))
        self.abort_parts(uri, upload_id)

    def abort_parts(self, uri: S3Uri, upload_id: str) -> None:
        parts = _parts(uri, upload_id)
        shutil.rmtree(parts, ignore_errors=True)
        with suppress(OSError):  # there are others, or another one that ended at this moment has removed it
            parts.parent.rmdir()

    def list_parts(self, uri: S3Uri, upload_id: str) -> Sequence[StoredPart]:
        parts = _parts(uri, upload_id)
        if not parts.is_dir():
            raise NotFound(f"{uri}: there is no such upload")
        found = [path for path in sorted(parts.iterdir()) if path.name.isdecimal()]
        sizes = [path.stat().st_size for path in found]
        return [StoredPart(int(p.name), size, f"{int(p.name)}:{size}") for p, size in zip(found, sizes, strict=True)]

    def unfinished_parts(self, folder: S3Uri) -> Iterator[tuple[S3Uri, str]]:
        uploads = _path(folder) / _UPLOADS
        for path in sorted(uploads.iterdir()) if uploads.is_dir() else []:
            name, _, upload_id = path.name.rpartition(".")
            yield LocalUri.of(_path(folder)) / name, upload_id


def _path(uri: S3Uri) -> Path:
    if not isinstance(uri, LocalUri):
        raise InvalidName(f"{uri} is no local path")
    return uri.path


def _parts(uri: S3Uri, upload_id: str) -> Path:
    path = _path(uri)
    return path.parent / _UPLOADS / f"{path.name}.{upload_id}"


def _tag(found: os.stat_result) -> str:
    return f"{found.st_ino}-{found.st_size}-{found.st_mtime_ns}"


class _opened:  # noqa: N801 - a context manager, used like a function
    """A file descriptor for reading. Raises `NotFound`."""

    def __init__(self, uri: S3Uri) -> None:
        self._uri = uri

    def __enter__(self) -> int:
        try:
            self._fd = os.open(_path(self._uri), os.O_RDONLY)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            raise NotFound(f"{self._uri}: there is no such file") from None
        return self._fd

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)
