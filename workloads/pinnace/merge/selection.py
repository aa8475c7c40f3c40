"""Choosing exactly k elements of a tensor by size, without sorting it.

The order is by key and, among equal keys, by index. A cut is found by two histograms over the bits of the keys (a
non-negative float32 compares as its bits do): the first over the upper 15 bits, the second over the lower 16 bits of
the keys that share the cut's upper bits. A third pass counts, block by block, the keys that equal the cut's, if it
falls among them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from . import lanes
from .methods.base import Block, Measure, Survey

if TYPE_CHECKING:
    from torch import Tensor

_UPPER, _LOWER = 1 << 15, 1 << 16
Keys = Callable[[Block], Sequence["Tensor"]]
"""Flat int32 tensors, the bits of non-negative float32 numbers; one for each thing that is cut."""
_BEYOND = (1 << 31) - 1  # above all keys
_NOWHERE = np.zeros(0, dtype=np.int64)


@dataclass(frozen=True, eq=False)
class Cut:
    """Divides the elements into the first `position` in ascending order, and the rest.

    Attributes:
        key: the key (as bits) at the border.
        quota: how many of the elements with this key belong below, lowest index first (or highest, see `descending`).
        equal: how many elements have this key.
        starts, before: the address of each block, and how many such elements come before it.
        descending: among equal keys, a lower index counts as larger.
    """

    key: int
    quota: int = 0
    equal: int = 0
    starts: np.ndarray[Any, Any] = field(default_factory=lambda: _NOWHERE)
    before: np.ndarray[Any, Any] = field(default_factory=lambda: _NOWHERE)
    descending: bool = False

    @property
    def divided(self) -> bool:
        """Some of the elements with this key are below, some are not."""
        return 0 < self.quota < self.equal

    def above(self, keys: Tensor, address: int) -> Tensor:
        """Which elements of the block at `address` are not below the cut, as lanes."""
        if not self.divided:
            return lanes.at_least(keys, self.key)
        above = lanes.at_least(keys, self.key + 1)
        first = int(self.before[np.searchsorted(self.starts, address)])
        # Ordinals of the equal elements of this block are first, first + 1, …
        border = (self.equal - self.quota if self.descending else self.quota) - first
        same = _where(keys, self.key)
        border = min(max(border, 0), len(same))
        return above.index_fill_(0, same[:border] if self.descending else same[border:], -1)


def cuts(keys: Keys, positions: Sequence[int], *, descending: bool = False) -> Survey:
    """Survey that finds, for each tensor of `keys`, the cut after its first `position` elements in ascending order.

    Positions are at least 0 and below the number of elements, or equal to it. Returns a list of `Cut`.
    """
    upper = yield Measure(lambda block: np.stack([_histogram(one >> 16, _UPPER) for one in keys(block)]))
    located = [_locate(counts, at) for counts, at in zip(upper, positions, strict=True)]

    def lower_halves(block: Block) -> np.ndarray[Any, Any]:
        return np.stack(
            [_histogram(_in_bin(one, bin_), _LOWER) for one, (bin_, _) in zip(keys(block), located, strict=True)]
        )

    lower = yield Measure(lower_halves)
    found = [_cut(counts, bin_, at, descending) for counts, (bin_, at) in zip(lower, located, strict=True)]
    if not any(cut.divided for cut in found):
        return found

    def equal(block: Block) -> np.ndarray[Any, Any]:
        row = [len(_where(one, cut.key)) if cut.divided else 0 for one, cut in zip(keys(block), found, strict=True)]
        return np.array([[block.address, *row]], dtype=np.int64)

    table = yield Measure(equal, join="append")
    starts, counts = table[:, 0], table[:, 1:]
    before = np.cumsum(counts, axis=0) - counts
    return [
        Cut(cut.key, cut.quota, cut.equal, starts, before[:, column], descending) if cut.divided else cut
        for column, cut in enumerate(found)
    ]


def _in_bin(keys: Tensor, bin_: int) -> Tensor:
    """The lower halves of those whose upper half is `bin_`."""
    import torch

    if keys.is_cuda:
        return keys[(keys >> 16) == bin_] & (_LOWER - 1)
    # numpy compares and picks several times faster than torch's boolean tensors. One comparison does for both ends of
    # the bin: what is below it wraps around.
    whole = (keys - (bin_ << 16)).numpy().view(np.uint32)
    return torch.from_numpy(whole[whole < _LOWER].view(np.int32))


def _where(keys: Tensor, key: int) -> Tensor:
    """The indices of the keys that equal `key`, ascending."""
    import torch

    if keys.is_cuda:
        return (keys == key).nonzero().flatten()
    return torch.from_numpy(np.flatnonzero(keys.numpy() == key))


def _histogram(values: Tensor, bins: int) -> np.ndarray[Any, Any]:
    import torch

    return torch.bincount(values, minlength=bins).cpu().numpy()


def _locate(counts: np.ndarray[Any, Any], position: int) -> tuple[int, int]:
    """The bin that holds the element at `position` in ascending order, and its position inside."""
    ends = np.cumsum(counts)
    bin_ = min(int(np.searchsorted(ends, position, side="right")), len(counts) - 1)
    return bin_, position - int(ends[bin_] - counts[bin_])


def _cut(counts: np.ndarray[Any, Any], upper: int, position: int, descending: bool) -> Cut:
    lower, rest = _locate(counts, position)
    equal = int(counts[lower])
    if rest >= equal:  # the position is behind the last element
        return Cut(_BEYOND, descending=descending)
    return Cut((upper << 16) | lower, quota=rest, equal=equal, descending=descending)
