"""model_stock: how far to go from the base to the mean, from the angle between the task vectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .base import Block, Contract, Survey, Task
from .spheres import Matrix, Sphere, gram

if TYPE_CHECKING:
    from torch import Tensor


class ModelStock(Sphere):
    """t · mean + (1 - t) x0, t = k c / (1 + (k - 1) c), c the mean cosine between the k task vectors."""

    contract = Contract(least=2)

    def __init__(self, *, rows: bool = False) -> None:
        self.rows = rows

    def surveyed(self, task: Task) -> bool:
        """Not with one t for each row."""
        return not task.options["filter_wise"]

    def survey(self, task: Task) -> Survey:
        if task.options["filter_wise"]:
            return None
        table = yield from gram(lambda block: block.deltas)
        return self.coefficients(table, task)

    def coefficients(self, table: Matrix, task: Task) -> Sequence[float]:
        return (float(_stock(table[None], task.count)[0]),)

    def merge(self, block: Block, task: Task, found: Any) -> Tensor:
        import torch

        average: Tensor = sum(block.models[1:], start=block.models[0]) / task.count
        if not task.options["filter_wise"]:
            t = float(found[0])
            return t * average + (1 - t) * block.origin
        deltas = [delta.view(-1, task.columns).double() for delta in block.deltas]
        table = torch.stack([torch.stack([(a * b).sum(1) for b in deltas]) for a in deltas]).permute(2, 0, 1)
        share = torch.from_numpy(_stock(table.cpu().numpy(), task.count)).to(average)
        share = share[:, None]
        shape = (-1, task.columns)
        return (share * average.view(shape) + (1 - share) * block.origin.view(shape)).flatten()


def _stock(tables: Matrix, count: int) -> Matrix:
    """t for each of the (n, k, k) Gram matrices; 0 where there is no finite one."""
    norms = np.sqrt(np.diagonal(tables, axis1=1, axis2=2))
    pairs = [(i, j) for i in range(count) for j in range(i + 1, count)]
    cosines = [np.clip(tables[:, i, j] / np.maximum(norms[:, i] * norms[:, j], 1e-6), -1, 1) for i, j in pairs]
    mean = np.mean(cosines, axis=0)
    divisor = 1 + (count - 1) * mean
    singular = np.abs(divisor) < 1e-6
    return np.asarray(np.where(singular, 0.0, count * mean / np.where(singular, 1.0, divisor)))
