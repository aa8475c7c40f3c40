"""The output's files, cut into parts: what is read, merged and uploaded at a time.

A part holds whole blocks. A tensor that spans parts has them to itself, but for small tensors before its first or after
its last block, so that a part never waits for two big tensors. All of this depends on the output only, never on memory
or threads: a resumed merge finds the same parts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import prod

from .tensors import SIZES, build_header

PART_BYTES = 16 << 20
_LEAST_PART = 5 << 20  # S3 takes smaller parts only as the last
_BLOCK = 1 << 18  # elements: a few of these fit into a core's cache in float32


@dataclass(frozen=True)
class OutputTensor:
    """A tensor of the output; `step` is the number of elements in a block."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    step: int

    @property
    def size(self) -> int:
        """Number of elements."""
        return prod(self.shape)

    @property
    def bytes(self) -> int:
        return self.size * SIZES[self.dtype]


@dataclass(frozen=True)
class Span:
    """Elements `start` to `end` of the output tensor `tensor` (a position in the plan's list)."""

    tensor: int
    start: int
    end: int


@dataclass(frozen=True)
class Part:
    """One part of an output file: `size` bytes, from `number` 1 on. The first one begins with the file's header."""

    number: int
    size: int
    spans: tuple[Span, ...]


@dataclass(frozen=True)
class Shard:
    """One output file."""

    file: str
    header: bytes
    parts: tuple[Part, ...]
    size: int


def block_step(shape: tuple[int, ...], *, rows: bool) -> int:
    """Elements in a block of a tensor of this shape: whole rows if they are short, or must be whole."""
    columns = shape[-1] if shape else 1
    if 0 < columns <= _BLOCK:
        return _BLOCK // columns * columns
    return max(columns, 1) if rows else _BLOCK


def shards(tensors: Sequence[OutputTensor], shard_bytes: int, part_bytes: int = PART_BYTES) -> list[Shard]:
    """Divides the tensors, in order, into files of at most `shard_bytes` (more only for a single bigger tensor)."""
    files: list[list[int]] = [[]]
    filled = 0
    for index, tensor in enumerate(tensors):
        if files[-1] and filled + tensor.bytes > shard_bytes:
            files.append([])
            filled = 0
        files[-1].append(index)
        filled += tensor.bytes
    total = len(files)
    return [
        _shard(
            "model.safetensors" if total == 1 else f"model-{number:05d}-of-{total:05d}.safetensors",
            tensors,
            members,
            part_bytes,
        )
        for number, members in enumerate(files, 1)
    ]


def _shard(file: str, tensors: Sequence[OutputTensor], members: Sequence[int], part_bytes: int) -> Shard:
    header = build_header([(tensors[i].name, tensors[i].dtype, tensors[i].shape) for i in members])
    parts: list[Part] = []
    spans: list[Span] = []
    size = len(header)

    def close() -> None:
        nonlocal size
        if size:
            parts.append(Part(len(parts) + 1, size, tuple(spans)))
            spans.clear()
            size = 0

    for index in members:
        tensor = tensors[index]
        if size + tensor.bytes <= part_bytes:
            spans.append(Span(index, 0, tensor.size))
            size += tensor.bytes
            continue
        if size >= min(_LEAST_PART, part_bytes):
            close()
        for start, end in _cuts(tensor, part_bytes):
            spans.append(Span(index, start, end))
            size += (end - start) * SIZES[tensor.dtype]
            # The last one stays open for the small tensors that follow, if there is room.
            if end < tensor.size:
                close()
    close()
    return Shard(file, header, tuple(parts), sum(part.size for part in parts))


def _cuts(tensor: OutputTensor, part_bytes: int) -> list[tuple[int, int]]:
    """Even runs of whole blocks, each about a part."""
    blocks = -(-tensor.size // tensor.step)
    wanted = max(1, min(blocks, -(-tensor.bytes // part_bytes)))
    borders = [min(tensor.size, blocks * i // wanted * tensor.step) for i in range(wanted + 1)]
    return list(pairwise(borders))
