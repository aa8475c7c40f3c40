"""Sums of tensors with one coefficient each, computed as mergekit does: in order, one addition at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def combination(tensors: Sequence[Tensor], coefficients: Sequence[float]) -> Tensor:
    """Σ c x of equally shaped tensors."""
    total = tensors[0] * coefficients[0]
    for tensor, coefficient in zip(tensors[1:], coefficients[1:], strict=True):
        total.add_(tensor, alpha=coefficient)
    return total
