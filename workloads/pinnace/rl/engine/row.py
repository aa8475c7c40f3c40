"""Samples side by side in one row, as a micro-batch goes through the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pinnace.rl.types import Sample

from .protocol import Logprobs


@dataclass(frozen=True)
class Row:
    """`ids` and `positions` have shape [1, T]; positions begin at 0 for each sample, which is how attention knows.

    `trained` are the places in the row, in order, whose token is trained; `sizes` how many of them each sample has.
    """

    ids: Tensor
    positions: Tensor
    trained: Tensor
    sizes: list[int]

    @classmethod
    def of(cls, samples: Sequence[Sample], device: torch.device) -> Row:
        ids = [token for sample in samples for token in sample.ids]
        positions = [position for sample in samples for position in range(len(sample.ids))]
        trained = [place for place, mask in enumerate(mask for sample in samples for mask in sample.loss_mask) if mask]
        return cls(
            torch.tensor([ids], device=device),
            torch.tensor([positions], device=device),
            torch.tensor(trained, dtype=torch.long, device=device),
            [sample.trained_tokens for sample in samples],
        )


def trained_values(sample: Sample, values: Sequence[float], like: Tensor) -> Tensor:
    """The entries of a stream at the sample's trained tokens."""
    kept = [value for value, mask in zip(values, sample.loss_mask, strict=True) if mask]
    return torch.tensor(kept, dtype=like.dtype, device=like.device)


def spread(sample: Sample, values: Tensor) -> tuple[float, ...]:
    """The inverse: 0 where nothing is trained."""
    given = iter(values.detach().tolist())
    return tuple(next(given) if mask else 0.0 for mask in sample.loss_mask)


def row_of(values: Logprobs | None, position: int) -> Sequence[float] | None:
    return None if values is None else values[position]
