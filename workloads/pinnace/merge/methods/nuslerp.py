"""nuslerp: slerp of two models (of their task vectors, with a base) by weight; of whole tensors, rows or columns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pinnace.merge.errors import InvalidMerge

from .base import Alone, Block, Contract, Measure, Survey, Task

if TYPE_CHECKING:
    from torch import Tensor

_EPS = 1e-8
_LEAST_NORM = 1e-7


class Nuslerp(Alone):
    """(sin((1-t)θ) v0 + sin(tθ) v1) / sin θ, t = w1 / (w0 + w1); a straight line where v0 and v1 are parallel."""

    contract = Contract(base="optional", least=2, most=2, own={"weight": None})

    def __init__(self, *, flatten: bool, row_wise: bool) -> None:
        self._rows = not flatten and not row_wise
        self._columns = not flatten and row_wise
        self.rows = not flatten

    def check(self, task: Task) -> None:
        """Columns are of matrices."""
        if self._columns and len(task.shape) > 2:
            raise InvalidMerge(
                f"{task.name} has shape {list(task.shape)}: nuslerp.rowWise needs matrices: set nuslerp.flatten to true"
            )

    def surveyed(self, task: Task) -> bool:
        """Whole tensors and columns cross blocks, rows don't."""
        return not self._rows

    def survey(self, task: Task) -> Survey:
        """The two coefficients, as one number or one for each column."""
        if self._rows:
            return None
        along = 0 if self._columns and len(task.shape) == 2 else None

        def products(block: Block) -> np.ndarray[Any, Any]:
            one, two = (delta.double().view(-1, task.columns) for delta in block.deltas)
            return np.stack(
                [
                    (a * b).sum(along).cpu().numpy() if along is not None else (a * b).sum().cpu().numpy()
                    for a, b in ((one, one), (two, two), (one, two))
                ]
            )

        return _coefficients((yield Measure(products)), task)

    def merge(self, block: Block, task: Task, found: Any) -> Tensor:
        """See the class."""
        import torch

        one, two = (delta.view(-1, task.columns) for delta in block.deltas)
        if self._rows:
            wide = (one.double(), two.double())
            products = torch.stack([(a * b).sum(1) for a, b in (wide[:1] * 2, wide[1:] * 2, wide)]).cpu().numpy()
            found = _coefficients(products, task)[:, :, None]
        first, second = (torch.from_numpy(np.asarray(each)).to(one) for each in found)
        merged = (first * one + second * two).flatten()
        return merged if block.base is None else block.base + merged


def _coefficients(products: np.ndarray[Any, Any], task: Task) -> np.ndarray[Any, Any]:
    """From ⟨v0,v0⟩, ⟨v1,v1⟩, ⟨v0,v1⟩ to the coefficients of v0 and v1."""
    first, second = task.own["weight"]
    t = 0.5 if abs(first + second) < 1e-6 else second / (first + second)
    norms = np.maximum(np.sqrt(products[:2]), _LEAST_NORM)
    cos = np.clip(products[2] / (norms[0] * norms[1]), -1, 1)
    parallel = 1 - cos**2 <= _EPS**2
    theta = np.arccos(np.where(parallel, 0, cos))
    sin = np.sin(theta)
    return np.stack(
        [
            np.where(parallel, 1 - t, np.sin((1 - t) * theta) / sin),
            np.where(parallel, t, np.sin(t * theta) / sin),
        ]
    )
