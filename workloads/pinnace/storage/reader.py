"""An object as a seekable binary stream."""

from __future__ import annotations

import io
from typing import Any

from pinnace.storage.objects import ObjectStore
from pinnace.storage.uri import S3Uri

BLOCK_BYTES = 4 << 20


class _Ranges(io.RawIOBase):
    """Each read is a request of its own: nothing is open in between, so a fork or a lost connection does no harm."""

    def __init__(self, store: ObjectStore, uri: S3Uri, size: int) -> None:
        self._store = store
        self._uri = uri
        self._size = size
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        if start + offset < 0:
            raise ValueError(f"seek to {start + offset} before the start of {self._uri}")
        self._position = start + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        end = min(self._size, self._position + len(buffer))
        body = self._store.read(self._uri, self._position, end)
        buffer[: len(body)] = body
        self._position += len(body)
        return len(body)


def open_object(store: ObjectStore, uri: S3Uri) -> io.BufferedReader:
    """A buffered, seekable stream that asks for 4 MiB at a time. Raises `NotFound`."""
    return io.BufferedReader(_Ranges(store, uri, store.size(uri)), BLOCK_BYTES)
