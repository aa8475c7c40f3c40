"""The safetensors format: reading and writing headers (https://huggingface.co/docs/safetensors, "Format")."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

from .errors import SourceUnusable

PREFIX_BYTES = 8
_MOST_HEADER_BYTES = 100 << 20  # the limit of the reference implementation
SIZES = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1,
    "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U64": 8, "U32": 4, "U16": 2, "U8": 1, "BOOL": 1,
}  # fmt: skip
"""Bytes of one element of each dtype."""
FLOATS = frozenset({"F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2"})
FP8 = frozenset({"F8_E4M3", "F8_E5M2"})


@dataclass(frozen=True)
class StoredTensor:
    """Where a tensor lies: bytes `start` to `end` of `file`."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: str
    start: int
    end: int

    @property
    def itemsize(self) -> int:
        """Bytes of one element."""
        return SIZES[self.dtype]

    @property
    def size(self) -> int:
        """Number of elements."""
        return prod(self.shape)


def header_bytes(prefix: bytes, file: str, file_size: int) -> int:
    """Length of the JSON that follows the first eight bytes. Raises `SourceUnusable`."""
    length = int.from_bytes(prefix, "little")
    if len(prefix) < PREFIX_BYTES or length > min(_MOST_HEADER_BYTES, file_size - PREFIX_BYTES):
        raise SourceUnusable(f"{file} is no safetensors file (its header would be {length} bytes): upload it again")
    return length


def parse_header(header: bytes, file: str, file_size: int) -> list[StoredTensor]:
    """The tensors of a file, in the order of their bytes. Raises `SourceUnusable` naming file and tensor."""
    try:
        table = json.loads(header)
        table.pop("__metadata__", None)
        found = [_entry(name, entry, file, PREFIX_BYTES + len(header)) for name, entry in table.items()]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise SourceUnusable(
            f"{file}: its safetensors header can't be read ({type(error).__name__}): upload it again"
        ) from None
    found.sort(key=lambda tensor: (tensor.start, tensor.end))
    place = PREFIX_BYTES + len(header)
    for tensor in found:
        if tensor.start != place or tensor.end - tensor.start != tensor.size * tensor.itemsize:
            raise SourceUnusable(
                f"{file}: {tensor.name}: its bytes {tensor.start}-{tensor.end} don't fit shape {list(tensor.shape)}, "
                f"{tensor.dtype}, after byte {place}: upload it again"
            )
        place = tensor.end
    if place != file_size:
        raise SourceUnusable(
            f"{file} has {file_size} bytes, its header describes {place}: it was cut or damaged, upload it again"
        )
    return found


def _entry(name: str, entry: Mapping[str, Any], file: str, offset: int) -> StoredTensor:
    dtype = entry["dtype"]
    if dtype not in SIZES:
        raise SourceUnusable(f"{file}: {name} has dtype {dtype}, which can't be merged: convert it to BF16")
    start, end = entry["data_offsets"]
    shape = tuple(int(length) for length in entry["shape"])
    if min((start, end, *shape)) < 0:
        raise ValueError(name)
    return StoredTensor(name, dtype, shape, file, offset + int(start), offset + int(end))


def build_header(tensors: list[tuple[str, str, tuple[int, ...]]]) -> bytes:
    """Prefix and header of a file with these tensors (name, dtype, shape), one after the other.

    Padded with spaces, so that data begin at a multiple of 8 bytes.
    """
    table: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    place = 0
    for name, dtype, shape in tensors:
        end = place + prod(shape) * SIZES[dtype]
        table[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [place, end]}
        place = end
    body = json.dumps(table, separators=(",", ":"), ensure_ascii=False).encode()
    body += b" " * (-len(body) % 8)
    return len(body).to_bytes(PREFIX_BYTES, "little") + body
