"""The order of output parts: they may be computed side by side, but not far apart, and are hashed one after the other.

Without it, parts that wait for an earlier one to be hashed would pile up in memory.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Sequence

from .budget import Budget
from .layout import Part, Shard

Place = tuple[str, int]
"""File and part number."""


class Order:
    """Hands out memory for finished parts, in turn, and computes the SHA-256 of each file.

    Args:
        parts: all parts that will be made, in order.
        hashed: files whose digest can be computed: all their parts are among `parts`.
        window: how many parts may be unhashed at once.
        part_bytes: memory for one part.
    """

    def __init__(self, parts: Sequence[Place], *, hashed: Sequence[str], window: int, part_bytes: int) -> None:
        self._position = {place: index for index, place in enumerate(parts)}
        self._digests = {file: hashlib.sha256() for file in hashed}
        self._waiting: dict[int, tuple[str, bytearray]] = {}
        self._passed = 0
        self._window = window
        self._bytes = part_bytes
        self._budget = Budget(window * part_bytes)
        self._turn = threading.Condition()
        self._closed: BaseException | None = None

    def enter(self, shard: Shard, part: Part) -> None:
        """Waits until it is this part's turn, and takes memory for it."""
        index = self._position[shard.file, part.number]
        with self._turn:
            self._turn.wait_for(lambda: self._closed or index < self._passed + self._window)
            if self._closed:
                raise self._closed
        self._budget.acquire(self._bytes)

    def hash(self, shard: Shard, part: Part, body: bytearray) -> None:
        """Takes a finished part. It goes into its file's digest once all before it did."""
        with self._turn:
            self._waiting[self._position[shard.file, part.number]] = (shard.file, body)
            while self._passed in self._waiting:
                file, next_body = self._waiting.pop(self._passed)
                if file in self._digests:
                    self._digests[file].update(next_body)
                self._passed += 1
            self._turn.notify_all()

    def leave(self) -> None:
        """Gives the memory of one part back: it is uploaded."""
        self._budget.release(self._bytes)

    def sha256(self, shard: Shard) -> str | None:
        """The digest of a file whose parts have all passed; None if an earlier attempt made some of them."""
        return self._digests[shard.file].hexdigest() if shard.file in self._digests else None

    def close(self, error: BaseException) -> None:
        """Whoever waits, or asks from now on, gets `error`."""
        with self._turn:
            self._closed = error
            self._turn.notify_all()
        self._budget.close(error)
