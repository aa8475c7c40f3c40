"""Conditions as integers of the width of the numbers: all bits set, or none.

torch's boolean tensors make every operation several times slower than the same on whole lanes, which are a vector
instruction each. A float is chosen by `and` with its bits, a condition is a sign spread over the lane.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def bits(numbers: Tensor) -> Tensor:
    """The same memory as integers (int32 for float32, int64 for float64)."""
    import torch

    return numbers.view(torch.int64 if numbers.dtype == torch.float64 else torch.int32)


def negative(integers: Tensor) -> Tensor:
    """Set where an integer is below 0."""
    return integers >> (integers.element_size() * 8 - 1)


def at_least(integers: Tensor, border: int) -> Tensor:
    """Set where an integer (not negative) is at least `border` (not negative)."""
    return negative((border - 1) - integers)


def below(integers: Tensor, border: int) -> Tensor:
    """Set where an integer (not negative) is below `border` (not negative)."""
    return negative(integers - border)


def nonzero(numbers: Tensor) -> Tensor:
    """Set where a float is neither 0 nor -0."""
    whole = bits(numbers)
    return negative(-(whole & _without_sign(whole)))


def chosen(numbers: Tensor, lanes: Tensor) -> Tensor:
    """The numbers where the lane is set, 0 elsewhere."""
    return (bits(numbers) & lanes).view(numbers.dtype)


def constant(value: float, lanes: Tensor) -> Tensor:
    """`value` where the lane is set, 0 elsewhere, as floats of the lanes' width."""
    import torch

    wide = lanes.element_size() == 8
    pattern: int = struct.unpack("<q" if wide else "<i", struct.pack("<d" if wide else "<f", value))[0]
    return (lanes & pattern).view(torch.float64 if wide else torch.float32)


def same_sign(one: Tensor, two: Tensor) -> Tensor:
    """Set where two floats have the same sign bit."""
    return ~negative(bits(one) ^ bits(two))


def _without_sign(whole: Tensor) -> int:
    return (1 << (whole.element_size() * 8 - 1)) - 1
