"""sce: select by variance, calculate weights by energy, erase minority signs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pinnace.merge.lanes import chosen, constant, nonzero, same_sign
from pinnace.merge.selection import cuts

from .base import Alone, Block, Contract, Measure, Survey, Task

if TYPE_CHECKING:
    from torch import Tensor


class Sce(Alone):
    """x0 + Σ A w d / Σ A w, w ∝ mean d², d without the elements whose variance between models is small."""

    contract = Contract(shared=("select_topk",))

    def surveyed(self, task: Task) -> bool:
        """Always: energies of whole tensors."""
        return True

    def survey(self, task: Task) -> Survey:
        """The cut of the variances (None: all stay), and the models' weights."""
        cut = None
        share = task.shared["select_topk"]
        if share < 1:
            nonzero = yield Measure(lambda block: np.array([int((_variance(block) != 0).sum())]))
            kept = int(int(nonzero[0]) * share)
            (cut,) = yield from cuts(lambda block: [_variance(block)], [task.size - kept], descending=True)

        def energies(block: Block) -> np.ndarray[Any, Any]:
            return np.array([float(delta.double().square().sum()) for delta in _selected(block, cut)])

        means = (yield Measure(energies)) / max(task.size, 1)
        total = float(means.sum())
        weights = means / total if abs(total) >= 1e-6 else np.full(task.count, 1 / task.count)
        return cut, tuple(weights.tolist())

    def merge(self, block: Block, task: Task, found: Any) -> Tensor:
        """See the class."""
        import torch

        cut, weights = found
        deltas = _selected(block, cut)
        total = deltas[0].clone()
        for delta in deltas[1:]:
            total += delta
            mixed, divisor = torch.zeros_like(total), torch.zeros_like(total)
        for delta, weight in zip(deltas, weights, strict=True):
            part = constant(weight, same_sign(delta, total) & nonzero(delta))
            mixed += delta * part
            divisor += part
        return block.origin + mixed / divisor.clamp_(min=1e-6)


def _variance(block: Block) -> Tensor:
    """Of each element between the models: the bits of float32."""
    import torch

    return torch.var(torch.stack(block.deltas), dim=0, unbiased=False).float().view(torch.int32) & 0x7FFFFFFF


def _selected(block: Block, cut: Any) -> list[Tensor]:
    if cut is None:
        return list(block.deltas)
    stays = cut.above(_variance(block), block.address)
    return [chosen(delta, stays) for delta in block.deltas]
