"""Where records are kept: a folder, or S3. Small objects by name, and "write if nobody has"."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from pinnace.storage import Conflict, InvalidName, NotFound, S3Uri, Storage
from pinnace.storage.insistence import Insistence
from pinnace.storage.uri import check_path


class Blobs(Protocol):
    """Thread-safe. All raise `pinnace.storage.StorageUnavailable` (S3) or `OSError` (a folder)."""

    def put(self, name: str, body: bytes) -> None:
        """Writes or replaces."""

    def claim(self, name: str, body: bytes) -> bool:
        """Writes if there is nothing; false if somebody else has written. True again for the very same `body`."""

    def get(self, name: str) -> bytes | None:
        """What is there; None if nothing is."""

    def names(self, prefix: str) -> Iterator[str]:
        """Names below a folder, in order."""

    def delete(self, names: list[str]) -> None:
        """What is absent is no error."""


class FolderBlobs:
    """Below a local folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __str__(self) -> str:
        return str(self._folder)

    def put(self, name: str, body: bytes) -> None:
        path = self._path(name)
        draft = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
        draft.write_bytes(body)
        draft.replace(path)

    def claim(self, name: str, body: bytes) -> bool:
        path = self._path(name)
        draft = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
        draft.write_bytes(body)
        try:
            os.link(draft, path)  # atomic, and fails if it exists
        except FileExistsError:
            return self.get(name) == body
        finally:
            draft.unlink()
        return True

    def get(self, name: str) -> bytes | None:
        try:
            return (self._folder / name).read_bytes()
        except FileNotFoundError:
            return None

    def names(self, prefix: str) -> Iterator[str]:
        root = self._folder / prefix
        for path in sorted(root.rglob("*")) if root.is_dir() else ():
            if path.is_file() and not path.name.startswith("."):
                yield path.relative_to(self._folder).as_posix()

    def delete(self, names: list[str]) -> None:
        for name in names:
            (self._folder / name).unlink(missing_ok=True)

    def _path(self, name: str) -> Path:
        path = self._folder / check_path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path


class S3Blobs:
    """Below a folder in S3. Requests that fail for transient reasons are repeated for `patience` seconds."""

    def __init__(self, storage: Storage, root: S3Uri, *, patience: float = 600) -> None:
        self._store = storage.store
        self._root = root
        self._insist = Insistence(give_up_after=patience, cap=5)

    def __str__(self) -> str:
        return str(self._root)

    def put(self, name: str, body: bytes) -> None:
        self._insist(lambda: self._store.put(self._root / name, body))

    def claim(self, name: str, body: bytes) -> bool:
        try:
            self._insist(lambda: self._store.put(self._root / name, body, if_absent=True))
        except Conflict:
            # A request whose answer was lost is repeated, and then conflicts with itself.
            return self.get(name) == body
        return True

    def get(self, name: str) -> bytes | None:
        try:
            return self._insist(lambda: self._store.read(self._root / name))
        except NotFound:
            return None

    def names(self, prefix: str) -> Iterator[str]:
        found = self._insist(lambda: list(self._store.list(self._root / prefix)))
        for each in found:
            yield self._root.relative(each.uri)

    def delete(self, names: list[str]) -> None:
        self._insist(lambda: self._store.delete([self._root / name for name in names]))


def open_blobs(where: str) -> Blobs:
    """`s3://bucket/path`, or a local folder. Raises `pinnace.storage.StorageError`."""
    if where.startswith("s3://"):
        return S3Blobs(Storage.from_env(), S3Uri.parse(where))
    if "://" in where:
        raise InvalidName(f"{where!r}: write s3://bucket/path or a local folder")
    return FolderBlobs(Path(where))
