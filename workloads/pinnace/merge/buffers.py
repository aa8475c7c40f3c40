"""Buffers that are used again: the page faults of a fresh one cost four times what copying into it costs."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import threading

_GRAIN = 2 << 20
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # malloc.h of glibc


def settle_malloc() -> None:
    """Makes freed buffers leave the process at once, and keeps the small blocks that are computed with.

    By itself glibc takes the size of the first freed buffer for the border between both, and buffers then stay in its
    heaps, in pieces. Elsewhere than on glibc this does nothing.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return
    mallopt(_M_MMAP_THRESHOLD, 4 << 20)
    mallopt(_M_TRIM_THRESHOLD, 16 << 20)
    mallopt(_M_ARENA_MAX, 4)  # each thread that transfers would keep a heap of its own


def let_go() -> None:
    """Gives memory that nobody uses any more back to the system, so that the next merge of this process may have it."""
    gc.collect()  # buffers of a merge hang on its futures, which know each other
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


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
