"""Buffers that are used again: a fresh one costs a page fault for every 4 KiB, four times what copying into it costs."""

from __future__ import annotations

import threading

_GRAIN = 2 << 20


def capacity(size: int) -> int:
    """The bytes that a buffer for `size` bytes takes."""
    return -(-size // _GRAIN) * _GRAIN


class Buffers:
    """A pool. What is in use is bounded by whoever takes; in use and spare together never exceed `total`."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._spare: dict[int, list[bytearray]] = {}
        self._held = 0  # in use and spare
        self._lock = threading.Lock()

    def take(self, size: int) -> bytearray:
        """A buffer of at least that size, with anything in it."""
        wanted = capacity(size)
        with self._lock:
            if self._spare.get(wanted):
                return self._spare[wanted].pop()
            while self._held + wanted > self._total and any(self._spare.values()):
                largest = max(each for each, spare in self._spare.items() if spare)
                self._spare[largest].pop()
                self._held -= largest
            self._held += wanted
        return bytearray(wanted)

    def give(self, buffer: bytearray) -> None:
        """Back into the pool."""
        with self._lock:
            self._spare.setdefault(len(buffer), []).append(buffer)
