"""The family of task arithmetic: thin out each task vector, weigh, elect signs, add to the base.

One class with three parts to choose: a `Thinning`, whether signs are elected, and the scale of what is kept.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from pinnace_operator.api.mergemethods import Mean, Rescale

from pinnace.merge.lanes import chosen, constant, nonzero, same_sign

from .base import Block, Contract, Measure, Survey, Task

if TYPE_CHECKING:
    from torch import Tensor

_TINY = 1e-7  # below this L1 norm nothing is scaled, as in mergekit
_ZERO = 1e-8  # below this sum of weights nothing is normalised, as in mergekit


class Thinning(Protocol):
    """Chooses the elements of a task vector that stay.

    Attributes:
        own: parameters of each model that it needs, with defaults.
        rows: it needs whole rows.
    """

    own: dict[str, float | None]
    rows: bool

    def whole(self, task: Task, model: int) -> bool:
        """This model's task vector stays as it is, unscaled."""

    def surveyed(self, task: Task) -> bool:
        """Whether `survey` looks at the tensor."""

    def survey(self, task: Task) -> Survey:
        """What `keep` needs to know about the whole tensor."""

    def across(self, tasks: Sequence[Task]) -> Survey | None:
        """What `keep` needs to know about all tensors; None: nothing."""

    def keep(self, delta: Tensor, model: int, block: Block, task: Task, found: Any) -> Tensor:
        """Which elements stay, as lanes."""

    def chance(self, delta: Tensor, model: int, task: Task) -> float | Tensor:
        """With which probability each element was to stay: the divisor of the papers' scale."""

    def check(self, task: Task) -> None:
        """Raises `InvalidMerge` for values that can't be."""


@dataclass(frozen=True)
class Found:
    """What the surveys found: for the thinning, and the scale of each model."""

    thinning: Any
    scales: tuple[float, ...] | None


class TaskVectors:
    """x0 + λ Σ w s m d, or with elected signs x0 + λ Σ A w s m d / Σ A w (see docs/merge.md)."""

    def __init__(self, thinning: Thinning | None, *, election: bool) -> None:
        self._thinning = thinning
        self._election = election
        self.rows = thinning is not None and thinning.rows
        own: dict[str, float | None] = {"weight": None}
        self.contract = Contract(own=own | (thinning.own if thinning else {}), shared=("lambda",))

    @property
    def _thinned(self) -> Thinning:
        if self._thinning is None:
            raise TypeError("this method keeps everything")
        return self._thinning

    def check(self, task: Task) -> None:
        """The thinning's values."""
        if self._thinning:
            self._thinning.check(task)

    def surveyed(self, task: Task) -> bool:
        """Cuts are looked for, or norms compared."""
        return self._thinning is not None and (self._thinning.surveyed(task) or self._normed(task))

    def across(self, tasks: Sequence[Task]) -> Survey | None:
        """Cuts of the whole model, if the thinning looks for them."""
        return self._thinning.across(tasks) if self._thinning else None

    def _normed(self, task: Task) -> bool:
        return task.options.get("rescale") == Rescale.L1 and not all(
            self._thinning is None or self._thinning.whole(task, model) for model in range(task.count)
        )

    def survey(self, task: Task) -> Survey:
        """Cuts first, then the L1 norms with and without what is dropped."""
        if self._thinning is None:
            return Found(None, None)
        found = task.across or (yield from self._thinning.survey(task))
        if not self._normed(task):
            return Found(found, None)
        return Found(found, (yield from self._norms(task, found)))

    def _norms(self, task: Task, found: Any) -> Generator[Measure, np.ndarray[Any, Any], tuple[float, ...]]:
        def norms(block: Block) -> np.ndarray[Any, Any]:
            rows = []
            for model, delta in enumerate(block.deltas):
                if self._whole(task, model):
                    rows.append((0.0, 0.0))
                    continue
                size = delta.abs()
                kept = chosen(size, self._keep(delta, model, block, task, found))
                rows.append((float(size.double().sum()), float(kept.double().sum())))
            return np.array(rows)

        sums = yield Measure(norms)
        return tuple(before / after if before >= _TINY and after >= _TINY else 1.0 for before, after in sums)

    def _whole(self, task: Task, model: int) -> bool:
        return self._thinning is None or self._thinning.whole(task, model)

    def _keep(self, delta: Tensor, model: int, block: Block, task: Task, found: Any) -> Tensor:
        return self._thinned.keep(delta, model, block, task, found)

    def merge(self, block: Block, task: Task, found: Any) -> Tensor:
        """See the class."""
        import torch

        weights = task.own["weight"]
        changes = [self._change(delta, model, block, task, found) for model, delta in enumerate(block.deltas)]
        if self._election:
            mixed = _elected(
                changes,
                weights,
                normalize=task.options["normalize"],
                plain=task.options.get("mean") == Mean.PLAIN,
            )
        else:
            mixed = changes[0].clone() if task.count == 1 else changes[0] + changes[1]
            for change in changes[2:]:
                mixed += change
            if task.options["normalize"]:
                # Summed in the compute dtype, as in mergekit.
                total = float(torch.tensor(weights, dtype=mixed.dtype).sum())
                if abs(total) >= _ZERO:
                    mixed /= total
        if task.shared["lambda"] != 1:
            mixed *= task.shared["lambda"]
        return block.origin + mixed

    def _change(self, delta: Tensor, model: int, block: Block, task: Task, found: Any) -> Tensor:
        """w s m d."""
        if not self._whole(task, model):
            kept = chosen(delta, self._keep(delta, model, block, task, found.thinning if found else task.across))
            if found and found.scales is not None:
                kept *= found.scales[model]
            elif task.options.get("rescale") == Rescale.PAPER:
                kept /= self._thinned.chance(delta, model, task)
            delta = kept
        return delta * task.own["weight"][model]


def _elected(changes: Sequence[Tensor], weights: Sequence[float], *, normalize: bool, plain: bool) -> Tensor:
    """Σ A u, or Σ A u / Σ A w: A is 1 where u has the sign of Σ u (0 counts as +). Zeros of u never agree."""
    import torch

    total = changes[0].clone()
    for change in changes[1:]:
        total += change
    mixed = torch.zeros_like(total)
    divisor = torch.zeros_like(total) if normalize else None
    for change, weight in zip(changes, weights, strict=True):
        agrees = same_sign(change, total)
        mixed += chosen(change, agrees)
        if divisor is not None:
            divisor += constant(1.0 if plain else weight, agrees & nonzero(change))
    if divisor is not None:
        mixed /= divisor.add_(constant(1.0, ~nonzero(divisor)))
    return mixed
