"""linear: Σ w x / Σ w."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pinnace.merge.errors import InvalidMerge

from .base import Block, Contract, Plain, Task

if TYPE_CHECKING:
    from torch import Tensor

_ZERO = 1e-12


class Linear(Plain):
    """Weighted mean of the models; a base only gives layout and tokenizer."""

    contract = Contract(base="ignored", own={"weight": None})

    def check(self, task: Task) -> None:
        """Weights must not cancel out."""
        if task.options["normalize"] and abs(sum(task.own["weight"])) < _ZERO:
            raise InvalidMerge(
                f"{task.name}: the weights {list(task.own['weight'])} sum to 0 and can't be normalised: "
                "change a weight, or set method.linear.normalize to false"
            )

    def merge(self, block: Block, task: Task, found: Any) -> Tensor:
        """Σ w x, divided by Σ w in the end. Weights are rounded to the compute dtype, as in mergekit."""
        import torch

        first = block.models[0]
        weights = torch.tensor(task.own["weight"], dtype=first.dtype, device=first.device)
        total = first * weights[0]
        for model, weight in zip(block.models[1:], weights[1:], strict=True):
            total.addcmul_(model, weight)
        return total.div_(weights.sum()) if task.options["normalize"] else total
