"""ram and ramplus: for agents trained by RL, whose changes are sparse and touch different places."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pinnace.merge.lanes import chosen, negative, nonzero

from .base import Block, Contract, Measure, Plain, Survey, Task

if TYPE_CHECKING:
    from torch import Tensor


def _touched(block: Block, epsilon: float) -> tuple[tuple[Tensor, ...], list[Tensor], Tensor]:
    """Task vectors, where each exceeds epsilon (as lanes), and how many do."""
    deltas = block.deltas
    active = [nonzero((delta.abs() - epsilon).clamp_(min=0)) for delta in deltas]
    count = -active[0]
    for one in active[1:]:
        count -= one
    return deltas, active, count


class Ram(Plain):
    """x0 + Σ d / n, over the n models that changed an element by more than ε."""

    contract = Contract(shared=("epsilon",))

    def merge(self, block: Block, task: Task, found: Any) -> Tensor:
        """Own changes (n = 1) times the model's factor."""
        import torch

        deltas, active, count = _touched(block, task.shared["epsilon"])
        unique = negative(count - 2)  # of the models that are active there
        divisor = count.clamp(min=1).to(deltas[0].dtype)
        mixed = torch.zeros_like(deltas[0])
        for model, (delta, one) in enumerate(zip(deltas, active, strict=True)):
            kept = chosen(delta, one)
            part = chosen(kept, ~unique) / divisor
            part.add_(chosen(kept, unique), alpha=1.0 if found is None else found[model])
            mixed += part
        return block.origin + mixed


class Ramplus(Ram):
    """As ram, own changes times 1 + r clip(shared / own, 0, alpha), counted for each model and tensor."""

    contract = Contract(shared=("epsilon", "r", "alpha"))

    def surveyed(self, task: Task) -> bool:
        """Counts of whole tensors."""
        return True

    def survey(self, task: Task) -> Survey:
        """The factor of each model."""

        def counts(block: Block) -> np.ndarray[Any, Any]:
            _, active, count = _touched(block, task.shared["epsilon"])
            unique = negative(count - 2)
            return np.array([(-int((one & ~unique).sum()), -int((one & unique).sum())) for one in active])

        table = yield Measure(counts)
        ratio = table[:, 0] / np.maximum(table[:, 1], task.shared["epsilon"])
        return tuple((1 + task.shared["r"] * np.clip(ratio, 0, task.shared["alpha"])).tolist())
