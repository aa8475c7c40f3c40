"""Which elements of a task vector stay: the largest, random ones, random ones by rank, all but outliers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from pinnace_operator.api.mergemethods import Trim

from pinnace.merge.errors import InvalidMerge
from pinnace.merge.masks import LEVELS, happens, uniform
from pinnace.merge.selection import Cut, cuts

from .base import Block, Survey, Task

if TYPE_CHECKING:
    from torch import Tensor

_MOST_INDEX_BITS = 16
_MOST_REMEMBERED = 512  # blocks of 2^18 elements, a bit each: 16 MiB


def _size(delta: Tensor) -> Tensor:
    """|d| as bits of float32, which compare as |d| does."""
    import torch

    return delta.float().view(torch.int32) & 0x7FFFFFFF


def _sizes(block: Block) -> list[Tensor]:
    return [_size(delta) for delta in block.deltas]


class _Shared:
    own: dict[str, float | None] = {"density": 1.0}  # noqa: RUF012 - never changed
    rows = False

    def whole(self, task: Task, model: int) -> bool:
        return task.own["density"][model] >= 1

    def surveyed(self, task: Task) -> bool:
        return False

    def survey(self, task: Task) -> Survey:
        return None
        yield

    def across(self, tasks: Sequence[Task]) -> Survey | None:
        return None

    def chance(self, delta: Tensor, model: int, task: Task) -> float | Tensor:
        return task.own["density"][model]

    def check(self, task: Task) -> None:
        for density in task.own["density"]:
            if not 0 < density <= 1:
                raise InvalidMerge(f"{task.name}: density is {density:g}: it must be above 0 and at most 1")


class Largest(_Shared):
    """ties: the k = ⌊dN⌋ (at least one) with the largest |d|; among equals the first."""

    def surveyed(self, task: Task) -> bool:
        return task.options["trim"] == Trim.TENSOR and any(density < 1 for density in task.own["density"])

    def survey(self, task: Task) -> Survey:
        if not self.surveyed(task):
            return None
        return (yield from cuts(_sizes, self._positions(task.size, task.own["density"]), descending=True))

    def across(self, tasks: Sequence[Task]) -> Survey | None:
        if not tasks or tasks[0].options["trim"] == Trim.TENSOR:
            return None
        densities = {task.own["density"] for task in tasks}
        if len(densities) > 1:
            raise InvalidMerge("ties.trim is Model: density must be the same for all tensors: remove it from layers")
        size = sum(task.size for task in tasks)
        return cuts(_sizes, self._positions(size, densities.pop()), descending=True)

    @staticmethod
    def _positions(size: int, densities: Sequence[float]) -> list[int]:
        return [size - min(size, max(1, int(density * size))) for density in densities]

    def keep(self, delta: Tensor, model: int, block: Block, task: Task, found: Any) -> Tensor:
        cut: Cut = found[model]
        return cut.above(_size(delta), block.address)


class Random(_Shared):
    """dare: each with probability d."""

    def keep(self, delta: Tensor, model: int, block: Block, task: Task, found: Any) -> Tensor:
        import torch

        kept = happens(
            task.own["density"][model],
            seed=task.seed,
            model=model,
            tensor=task.name,
            start=block.start,
            count=delta.numel(),
        )
        return torch.from_numpy(kept).to(delta.device)


class RandomByRank(_Shared):
    """della: with probability (d - ε) + 2ε (r - 1)/(n - 1), r the ascending rank of |d| in its row of n.

    Among equals the first has the lower rank; a row of one element stays with probability d.
    """

    own: dict[str, float | None] = {"density": 1.0, "epsilon": 0.15}  # noqa: RUF012 - never changed
    rows = True

    def __init__(self) -> None:
        # What the survey has found out by sorting, as bits, until the merge asks for it; only as much as fits.
        self._kept: dict[tuple[str, int, int], np.ndarray[Any, Any]] = {}

    def keep(self, delta: Tensor, model: int, block: Block, task: Task, found: Any) -> Tensor:
        import torch

        address = (task.name, model, block.start)
        known = self._kept.pop(address, None)
        if known is not None:
            return torch.from_numpy(_lanes(np.unpackbits(known, count=delta.numel()))).to(delta.device)
        kept = self._sorted_out(delta, model, block, task)
        if len(self._kept) < _MOST_REMEMBERED:
            self._kept[address] = np.packbits(kept)
        return torch.from_numpy(_lanes(kept)).to(delta.device)

    def _sorted_out(self, delta: Tensor, model: int, block: Block, task: Task) -> np.ndarray[Any, Any]:
        drawn = uniform(seed=task.seed, model=model, tensor=task.name, start=block.start, count=delta.numel()).reshape(
            -1, task.columns
        )
        keys = _size(delta).cpu().numpy().view(np.uint32).reshape(-1, task.columns)
        return _kept_by_rank(keys, drawn, task.own["density"][model], task.own["epsilon"][model]).reshape(-1)

    def chance(self, delta: Tensor, model: int, task: Task) -> float | Tensor:
        import torch

        density, epsilon, n = task.own["density"][model], task.own["epsilon"][model], task.columns
        if n == 1:
            return density
        order = delta.abs().view(-1, n).argsort(dim=1, stable=True)
        ranks = torch.empty_like(order).scatter_(1, order, torch.arange(n, device=order.device).expand_as(order))
        return (density - epsilon + 2 * epsilon * ranks.to(delta.dtype) / (n - 1)).flatten()

    def check(self, task: Task) -> None:
        super().check(task)
        for density, epsilon in zip(task.own["density"], task.own["epsilon"], strict=True):
            if density < 1 and not (density - epsilon > 0 and density + epsilon < 1):
                raise InvalidMerge(
                    f"{task.name}: density {density:g} ± epsilon {epsilon:g} leaves (0, 1): choose a smaller epsilon"
                )


class WithoutOutliers(_Shared):
    """breadcrumbs: without the ⌊gamma N⌋ largest, then without the smallest until ⌊dN⌋ are left."""

    own: dict[str, float | None] = {"density": 1.0, "gamma": 0.01}  # noqa: RUF012 - never changed

    def surveyed(self, task: Task) -> bool:
        return any(density < 1 for density in task.own["density"])

    def survey(self, task: Task) -> Survey:
        if not self.surveyed(task):
            return None
        lows, highs = [], []
        for density, gamma in zip(task.own["density"], task.own["gamma"], strict=True):
            kept, outliers = int(density * task.size), int(gamma * task.size)
            low = max(0, task.size - kept - outliers)
            lows.append(low)
            highs.append(min(task.size, low + kept))
        found = yield from cuts(lambda block: [*_sizes(block), *_sizes(block)], [*lows, *highs])
        return list(zip(found[: task.count], found[task.count :], strict=True))

    def keep(self, delta: Tensor, model: int, block: Block, task: Task, found: Any) -> Tensor:
        cuts_: tuple[Cut, Cut] = found[model]
        low, high = cuts_
        keys = _size(delta)
        return low.above(keys, block.address) & ~high.above(keys, block.address)


def _kept_by_rank(
    keys: np.ndarray[Any, Any], drawn: np.ndarray[Any, Any], density: float, epsilon: float
) -> np.ndarray[Any, Any]:
    """Keys (bits of |d|) and random numbers of 16 bits, both (rows, n), to what stays.

    An element stays if its rank is at least the one from which its random number suffices, which is so if it is at
    least as large as the element at that rank of the sorted row: no rank is ever computed. The lowest bits of the keys
    give way to the index, so that a row's keys are distinct: |d| is compared to 31 - log2(n) bits (19 for n = 4096:
    8 of exponent, 11 of mantissa), and by index below that.
    """
    n = keys.shape[1]
    if n == 1:
        return np.asarray(drawn < density * LEVELS)
    room = (n - 1).bit_length()
    if room > _MOST_INDEX_BITS:
        keys = keys.astype(np.uint64) << np.uint64(32)
        keys |= np.arange(n, dtype=np.uint64)
    else:
        keys = (keys >> np.uint32(room) << np.uint32(room)) | np.arange(n, dtype=np.uint32)
    ordered = np.sort(keys, axis=1)
    ranks = _lowest_ranks(n, density, epsilon).take(drawn, mode="clip")
    # Rank n is taken for n - 1 and excluded after. `take` on flat arrays is several times faster than along an axis.
    rows = np.arange(0, keys.size, n)[:, None]
    border = ordered.reshape(-1).take(np.minimum(ranks, n - 1) + rows, mode="clip")
    return np.asarray((keys >= border) & (ranks < n))


def _lanes(chosen: np.ndarray[Any, Any]) -> np.ndarray[Any, np.dtype[np.int32]]:
    """-1 where it is true."""
    found: np.ndarray[Any, np.dtype[np.int32]] = np.negative(chosen.view(np.int8)).astype(np.int32)
    return found


@lru_cache(maxsize=64)
def _lowest_ranks(n: int, density: float, epsilon: float) -> np.ndarray[Any, Any]:
    """For each number of 16 bits, the lowest rank (from 0) whose keep probability exceeds it; n if none does."""
    numbers = np.arange(LEVELS) / LEVELS
    if not epsilon:
        return np.where(numbers < density, 0, n)
    needed = np.floor((numbers - (density - epsilon)) * (n - 1) / (2 * epsilon)) + 1
    found: np.ndarray[Any, Any] = np.clip(needed, 0, n).astype(np.int64)
    return found
