"""Where the elements of an output tensor come from in each source, and which bytes to read for some of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from .tensors import StoredTensor
from .tokens import RowRun


@dataclass(frozen=True)
class LowRank:
    """A change of `scale` · B A to a weight: A is (r, in), B is (out, r), both in the adapter's file."""

    a: StoredTensor
    b: StoredTensor
    scale: float


@dataclass(frozen=True)
class Input:
    """One tensor of one source.

    Attributes:
        tensor: where it lies; None: it is the base's (`missingTensors: TakeBase`, or only an adapter changes it).
        folder: 0 the source's own folder, 1 its adapter's.
        runs: how the base's rows come from this tensor's, when the vocabularies differ.
        change: what the adapter adds.
    """

    tensor: StoredTensor | None
    folder: int = 0
    runs: tuple[RowRun, ...] = ()
    change: LowRank | None = None

    @property
    def needs_base(self) -> bool:
        """Some of its elements are the base's."""
        return self.tensor is None or any(run.source is None for run in self.runs)


@dataclass(frozen=True)
class Read:
    """Bytes `start` to `end` of a file, to be put at `at` of a buffer."""

    folder: int
    file: str
    start: int
    end: int
    at: int

    @property
    def size(self) -> int:
        return self.end - self.start


def reads(source: Input, columns: int, first: int, last: int, at: int) -> Iterator[Read]:
    """What to read for the elements `first` to `last` of a tensor with `columns` elements a row.

    The elements are put at `at`, in order; where they are the base's, the place stays as it is. The halves of an
    adapter's change follow at the next multiple of 8.
    """
    place = at
    tensor = source.tensor
    if tensor is not None:
        width = tensor.itemsize
        if not source.runs:
            yield Read(source.folder, tensor.file, tensor.start + first * width, tensor.start + last * width, at)
        for run in source.runs:
            low, high = max(run.start * columns, first), min(run.end * columns, last)
            if run.source is not None and low < high:
                begin = tensor.start + (low + (run.source - run.start) * columns) * width
                yield Read(source.folder, tensor.file, begin, begin + (high - low) * width, at + (low - first) * width)
        place += (last - first) * width
    if source.change:
        place = aligned(place)
        a, b = source.change.a, source.change.b
        yield Read(1, a.file, a.start, a.end, place)
        place = aligned(place + a.end - a.start)
        row = b.shape[1] * b.itemsize
        yield Read(1, b.file, b.start + first // columns * row, b.start + -(-last // columns) * row, place)


def extent(source: Input, columns: int, first: int, last: int, at: int) -> int:
    """Where the bytes for these elements end, when they begin at `at`."""
    place = at
    if source.tensor is not None:
        place += (last - first) * source.tensor.itemsize
    if source.change:
        a, b = source.change.a, source.change.b
        place = aligned(aligned(place) + a.end - a.start)
        place += (-(-last // columns) - first // columns) * b.shape[1] * b.itemsize
    return place


def coalesced(wanted: Sequence[Read]) -> list[Read]:
    """Reads that follow each other in file and buffer as one."""
    joined: list[Read] = []
    for read in wanted:
        last = joined[-1] if joined else None
        if (
            last
            and (last.folder, last.file, last.end) == (read.folder, read.file, read.start)
            and last.at + last.size == read.at
        ):
            joined[-1] = Read(last.folder, last.file, last.start, read.end, last.at)
        elif read.size:
            joined.append(read)
    return joined


def aligned(place: int) -> int:
    """The next multiple of 8."""
    return -(-place // 8) * 8
