"""Methods on the sphere. All of them are sums Σ c x whose coefficients depend on inner products of whole tensors only:

one pass finds the Gram matrix (in float64, where mergekit works in float32 with the tensors themselves), the rest is
arithmetic on small matrices, and another pass sums up.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pinnace.merge.errors import InvalidMerge

from .base import Alone, Block, Contract, Measure, Survey, Task
from .combination import combination

if TYPE_CHECKING:
    from torch import Tensor

Matrix = np.ndarray[Any, np.dtype[np.float64]]
_PARALLEL = 0.9995  # beyond this |cos|, slerp is lerp


def gram(vectors: Callable[[Block], Sequence[Tensor]]) -> Survey:
    """Survey that finds ⟨v_i, v_j⟩ of the vectors, in float64."""

    def products(block: Block) -> Matrix:
        wide = [one.double() for one in vectors(block)]
        table = np.zeros((len(wide), len(wide)))
        for i, one in enumerate(wide):
            for j in range(i, len(wide)):
                table[i, j] = table[j, i] = float((one * wide[j]).sum())
        return table

    return (yield Measure(products))


class Sphere(Alone, ABC):
    """A sum with coefficients that follow from inner products."""

    def surveyed(self, task: Task) -> bool:
        """Always: inner products of whole tensors."""
        return True

    def survey(self, task: Task) -> Survey:
        """The coefficients."""
        table = yield from gram(lambda block: self.vectors(block, task))
        return self.coefficients(table, task)

    def merge(self, block: Block, task: Task, found: Any) -> Tensor:
        """Σ c x."""
        return combination(self.vectors(block, task), found)

    def vectors(self, block: Block, task: Task) -> Sequence[Tensor]:
        return block.models

    @abstractmethod
    def coefficients(self, table: Matrix, task: Task) -> Sequence[float]:
        """From inner products to coefficients."""


class Slerp(Sphere):
    """(sin((1-t)θ) x0 + sin(tθ) x) / sin θ; (1-t) x0 + t x if |cos θ| > 0.9995."""

    contract = Contract(most=1, shared=("t",))

    def vectors(self, block: Block, task: Task) -> Sequence[Tensor]:
        return (block.origin, *block.models)

    def coefficients(self, table: Matrix, task: Task) -> Sequence[float]:
        t = task.shared["t"]
        norms = [norm if norm > 1e-8 else 1.0 for norm in np.sqrt(np.diag(table)).tolist()]
        cos = clip(table[0, 1] / (norms[0] * norms[1]))
        if abs(cos) > _PARALLEL:
            return 1 - t, t
        theta = math.acos(cos)
        return math.sin((1 - t) * theta) / math.sin(theta), math.sin(t * theta) / math.sin(theta)


class Multislerp(Sphere):
    """Exponential map at the weighted mean direction of the weighted sum of tangents, times the mean norm."""

    contract = Contract(base="optional", own={"weight": None})

    def vectors(self, block: Block, task: Task) -> Sequence[Tensor]:
        return block.deltas

    def merge(self, block: Block, task: Task, found: Any) -> Tensor:
        merged = combination(block.deltas, found)
        return merged if block.base is None else block.base + merged

    def check(self, task: Task) -> None:
        if task.options["normalize_weights"] and abs(sum(task.own["weight"])) < 1e-12:
            raise InvalidMerge(f"{task.name}: the weights sum to 0 and can't be normalised: change a weight")

    def coefficients(self, table: Matrix, task: Task) -> Sequence[float]:
        eps = 1e-8
        if task.count == 1:
            return (1.0,)
        weights = np.array(task.own["weight"])
        if task.options["normalize_weights"]:
            weights = weights / weights.sum()
        norms = np.sqrt(np.diag(table))
        scale = 1 / (norms + eps)  # of each vector to (nearly) its direction
        mean = weights * scale
        size = length(mean, table)
        if size < eps:
            if task.count == 2:
                return tuple(weights.tolist())
            raise InvalidMerge(
                f"{task.name}: the weighted directions of the models cancel out: change the weights, or use linear"
            )
        mean = mean / size
        dots = scale * (table @ mean)  # ⟨unit, mean⟩
        tangent = weights * scale - (weights @ dots) * mean
        angle = length(tangent, table) + eps
        point = mean * math.cos(angle) + tangent * (math.sin(angle) / angle)
        return tuple((point * float(norms @ weights)).tolist())


class Karcher(Sphere):
    """Karcher mean of the directions, all models alike, times the mean of the norms; all inputs count."""

    contract = Contract(base="ignored", shared=("max_iterations", "tolerance"))

    def coefficients(self, table: Matrix, task: Task) -> Sequence[float]:
        norms = np.sqrt(np.diag(table))
        if task.count == 1:
            return (1.0,)
        tolerance = task.shared["tolerance"]
        valid = norms > tolerance
        if not valid.any():
            return (0.0,) * task.count
        alphas = np.where(valid, 1 / valid.sum(), 0)
        unit = np.where(valid, 1 / np.where(valid, norms, 1), 0)  # coefficient of each direction
        mean = alphas * unit
        size = length(mean, table)
        first = int(np.argmax(valid))
        mean = np.where(np.arange(task.count) == first, unit, 0) if size < tolerance else mean / size
        for _ in range(int(task.shared["max_iterations"])):
            tangent = np.zeros(task.count)
            for model in np.nonzero(valid)[0]:
                dot = clip(unit[model] * float(table[model] @ mean))
                theta = math.acos(dot)
                if theta < tolerance:
                    continue
                step = -dot * mean
                step[model] += unit[model]
                tangent += alphas[model] * (theta / math.sin(theta)) * step
            size = length(tangent, table)
            if size < tolerance:
                break
            mean = math.cos(size) * mean + math.sin(size) * (tangent / size)
            size = length(mean, table)
            if size > tolerance:
                mean = mean / size
        return tuple((mean * float(norms.mean())).tolist())


def length(coefficients: Matrix, table: Matrix) -> float:
    """Norm of Σ c v."""
    return math.sqrt(max(0.0, float(coefficients @ table @ coefficients)))


def clip(cosine: float) -> float:
    return min(1.0, max(-1.0, float(cosine)))
