"""SHA-256 of input files, computed from what the merge reads anyway, in the order of the file."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Sequence
from itertools import pairwise

from .errors import SourceDamaged
from .source import Folder

_GAP_BYTES = 8 << 20


class FileDigest:
    """One file with a known digest, fed with the ranges that are read, from many threads.

    A range waits until all before it were fed. What nobody reads (headers, tensors that are left out, parts that an
    earlier attempt has done) is read here.
    """

    def __init__(self, folder: Folder, file: str, sha256: str, expected: Sequence[tuple[int, int]]) -> None:
        self._folder = folder
        self._file = file
        self._sha256 = sha256
        self._size = folder.files[file].size
        self._expected = list(expected)  # ranges that will be fed, ascending
        self._digest = hashlib.sha256()
        self._place = 0
        self._turn = threading.Condition()
        self._closed: BaseException | None = None

    def feed(self, start: int, body: memoryview) -> None:
        """Takes the bytes from `start` on. A range that was fed before changes nothing."""
        with self._turn:
            while self._place < start and not self._closed:
                if self._next_expected() >= start:
                    self._read_to(start)
                elif self._place < self._next_expected():
                    self._read_to(self._next_expected())
                else:
                    self._turn.wait()
            if self._closed:
                raise self._closed
            if self._place >= start + len(body):
                return
            self._digest.update(body[self._place - start :])
            self._advance(start + len(body))

    def finish(self) -> None:
        """Reads what is left and compares. Raises `SourceDamaged`."""
        with self._turn:
            self._read_to(self._size)
            if self._digest.hexdigest() != self._sha256:
                raise SourceDamaged(
                    f"{self._folder.uri / self._file} is not what its manifest says (SHA-256 differs): it was damaged "
                    "after it was published; publish the model again"
                )

    def close(self, error: BaseException) -> None:
        """Whoever waits gets `error`."""
        with self._turn:
            self._closed = error
            self._turn.notify_all()

    def _next_expected(self) -> int:
        """Where the next range begins (or began) that will be fed and was not yet."""
        return self._expected[0][0] if self._expected else self._size

    def _advance(self, place: int) -> None:
        self._place = place
        while self._expected and self._expected[0][1] <= place:
            self._expected.pop(0)
        self._turn.notify_all()

    def _read_to(self, end: int) -> None:
        while self._place < end:
            body = bytearray(min(_GAP_BYTES, end - self._place))
            self._folder.read_into(self._file, self._place, memoryview(body))
            self._digest.update(body)
            self._advance(self._place + len(body))


def ascending(ranges: Sequence[tuple[int, int]]) -> bool:
    """Each range begins where or after the one before ended."""
    return all(one[1] <= two[0] for one, two in pairwise(ranges))
