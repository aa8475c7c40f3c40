"""Reads what parts are made of: many ranges at once, into buffers that are used again, hashed on the way."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future

from pinnace.storage.insistence import Insistence
from pinnace.storage.workers import Workers, gather

from .buffers import Buffers
from .compute import PartData
from .inputs import Read
from .layout import Part
from .plan import Plan
from .source import Folder
from .verification import FileDigest, ascending

_FileKey = tuple[int, int, str]


class Fetching:
    """Reads in flight for one part."""

    def __init__(self, part: Part, buffers: list[bytearray], pieces: list[Future[None]]) -> None:
        self.part = part
        self._buffers = buffers
        self._pieces = pieces

    def result(self) -> PartData:
        """Waits for all. Raises the first error."""
        gather(self._pieces)
        return PartData(self.part, [memoryview(buffer) for buffer in self._buffers])

    def settle(self) -> None:
        """Waits until nothing is written into the buffers any more, whatever came of it."""
        for piece in self._pieces:
            if not piece.cancel():
                piece.exception()

    def drop(self) -> list[bytearray]:
        """Lets go of the buffers, to be given back to the pool."""
        found, self._buffers, self._pieces = [one for one in self._buffers if one], [], []
        return found


class Fetcher:
    """Fetches parts of one plan. `failed` says whether the merge has failed elsewhere."""

    def __init__(
        self,
        plan: Plan,
        workers: Workers,
        buffers: Buffers,
        insist: Insistence,
        failed: Callable[[], BaseException | None],
    ) -> None:
        self.plan = plan
        self._workers = workers
        self._buffers = buffers
        self._insist = insist
        self._failed = failed
        self._digests: dict[_FileKey, FileDigest] = {}

    def start(self, part: Part) -> Fetching:
        """Asks for everything that a part is made of. The memory must have been granted."""
        sizes, reads = self.plan.buffers(part), self.plan.reads(part)
        buffers = [self._buffers.take(size) if size else bytearray() for size in sizes]
        pieces = [
            self._workers.submit(self._read, source, read, memoryview(buffer)[read.at : read.at + read.size])
            for source, (buffer, wanted) in enumerate(zip(buffers, reads, strict=True))
            for read in wanted
        ]
        return Fetching(part, buffers, pieces)

    def release(self, fetching: Fetching) -> None:
        """The part's bytes are not needed any more."""
        for buffer in fetching.drop():
            self._buffers.give(buffer)

    def verify(self, parts: Sequence[Part]) -> None:
        """From now on, compares inputs with the digests of their manifests. `parts` are what will be fetched, in order.

        Files that will be read in another order than they lie are verified at once. Raises `SourceDamaged`.
        """
        expected: dict[_FileKey, list[tuple[int, int]]] = {}
        for part in parts:
            for source, wanted in enumerate(self.plan.reads(part)):
                for read in wanted:
                    expected.setdefault((source, read.folder, read.file), []).append((read.start, read.end))
        for key, ranges in expected.items():
            folder = self._folder(key[0], key[1])
            entry = folder.manifest.get(key[2])
            if entry is None:
                continue
            digest = FileDigest(folder, key[2], entry.sha256, ranges if ascending(ranges) else [])
            if ascending(ranges):
                self._digests[key] = digest
            else:
                digest.finish()

    def verified(self) -> None:
        """Reads what nobody has read, and compares. Raises `SourceDamaged` naming the file."""
        gather([self._workers.submit(digest.finish) for digest in self._digests.values()])

    def close(self, error: BaseException) -> None:
        """Whoever waits for a digest's turn gets `error`."""
        for digest in self._digests.values():
            digest.close(error)

    def _read(self, source: int, read: Read, into: memoryview) -> None:
        if (error := self._failed()) is not None:
            raise error
        folder = self._folder(source, read.folder)
        self._insist(lambda: folder.read_into(read.file, read.start, into))
        digest = self._digests.get((source, read.folder, read.file))
        if digest is not None:
            digest.feed(read.start, into)

    def _folder(self, source: int, which: int) -> Folder:
        found = self.plan.sources[source].adapter if which else self.plan.sources[source].folder
        if found is None:
            raise TypeError("this source has no adapter")
        return found
