"""Cuts what a child writes into lines, however it comes and however long it is."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_KEPT = 4096  # bytes of a too long line that are kept to find out what it answers
_ID = re.compile(rb'"id"\s*:\s*(\d+)')


@dataclass(frozen=True)
class Oversized:
    """A line that was too long and has been dropped. `id` is the request it seems to answer."""

    size: int
    id: int | None


class Lines:
    """Feed it bytes, get whole lines. It never holds more than `limit` bytes and one chunk."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._parts: list[bytes] = []
        self._size = 0
        self._head = b""  # beginning of a line that is being dropped

    def feed(self, chunk: bytes) -> Iterator[bytes | Oversized]:
        """The lines that end in this chunk, without their line ends; empty ones are left out."""
        *whole, rest = chunk.split(b"\n")
        for part in whole:
            line = self._finish(part)
            if line:
                yield line
        self._keep(rest)

    def _keep(self, part: bytes) -> None:
        self._size += len(part)
        if self._size > self._limit:
            if not self._head:
                self._head = b"".join([*self._parts, part])[:_KEPT]
            self._parts = [b"".join([*self._parts, part])[-_KEPT:]]
        elif part:
            self._parts.append(part)

    def _finish(self, part: bytes) -> bytes | Oversized:
        self._keep(part)
        line, head, size = b"".join(self._parts), self._head, self._size
        self._parts, self._size, self._head = [], 0, b""
        if size <= self._limit:
            return line.strip()
        found = _ID.search(head) or _ID.search(line)
        return Oversized(size, int(found[1]) if found else None)
