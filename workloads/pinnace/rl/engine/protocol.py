"""The two calls that a training loop, gradient accumulation and a remote training API stand on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from pinnace.rl.types import Sample

if TYPE_CHECKING:
    from torch import Tensor

    from pinnace.rl.loss import Loss

Logprobs = list[tuple[float, ...]]


class NotFinite(ArithmeticError):
    """A loss or gradient is NaN or infinite: stop, and go back to the last checkpoint."""


@dataclass(frozen=True, kw_only=True)
class OptimizerParameters:
    """AdamW (Loshchilov & Hutter 2019) with gradients clipped to a global norm; they may differ at every step."""

    learning_rate: float
    weight_decay: float = 0.0
    beta1: float = 0.9
    beta2: float = 0.999


@dataclass(frozen=True, kw_only=True)
class Accumulated:
    """What `accumulate` saw.

    Attributes:
        logprobs: for every sample in the order given, one number a token of `ids`: 0 where nothing is trained.
        loss: sum over the batch of weight times loss.
        sums: the loss's metrics, summed over trained tokens; `entropy` and `tokens` among them.
    """

    logprobs: Logprobs
    loss: float
    sums: dict[str, float]


class TrainEngine(Protocol):
    """A model in training, over all its ranks. Every rank calls with the same batch and gets the same answer."""

    def accumulate(
        self, samples: Sequence[Sample], loss: Loss, *, prox: Logprobs | None = None, reference: Logprobs | None = None
    ) -> Accumulated:
        """Adds the batch's gradient to what is there. Raises `NotFinite` or `pinnace.rl.pack.TooLong`."""
        ...

    def apply(self, parameters: OptimizerParameters) -> float:
        """One optimizer step with what was accumulated; returns the gradient's norm. Raises `NotFinite`."""
        ...

    def logprobs(self, samples: Sequence[Sample]) -> Logprobs:
        """Log-probs under the current weights, without a gradient."""
        ...

    def next_logprobs(self, ids: Sequence[int]) -> tuple[float, ...]:
        """Log-probs of every word of the vocabulary after `ids`: what a server's weights are recognised by."""
        ...

    def save(self, directory: Path) -> None:
        """Weights, optimizer and random state of every rank into a folder that all ranks share."""
        ...

    def load(self, directory: Path) -> None:
        """The inverse: training goes on as if it had not ended."""
        ...

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        """Names, as in the model's safetensors, and whole tensors, one at a time; on every rank."""
        ...
