"""Random decisions by address: (seed, model, tensor, element) decides, not who asks when.

Philox 4x64 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011) is keyed by a hash of seed, model and
tensor, and its counter follows from the element's index: any block can be drawn alone, in any order, by any thread.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

LEVELS = 1 << 16
_PER_COUNT = 16  # numbers of 16 bits that one step of the counter gives
_WIDE = 1 << 48


def uniform(*, seed: int, model: int, tensor: str, start: int, count: int) -> np.ndarray[Any, np.dtype[np.uint16]]:
    """Numbers from 0 to 65535, all equally likely, for the elements `start` to `start + count`."""
    skip = start % _PER_COUNT
    stream = np.random.Generator(np.random.Philox(key=_key(seed, model, tensor), counter=start // _PER_COUNT))
    words = stream.integers(0, (1 << 64) - 1, -(-(skip + count) // 4), dtype=np.uint64, endpoint=True)
    return words.view(np.uint16)[skip : skip + count]


def happens(
    probability: float, *, seed: int, model: int, tensor: str, start: int, count: int
) -> np.ndarray[Any, np.dtype[np.int32]]:
    """For each element -1 with this probability, else 0.

    The 16 bits settle all but one in 65536 elements; for those the next 48 bits of the probability are compared with a
    hash of the element's address.
    """
    drawn = uniform(seed=seed, model=model, tensor=tensor, start=start, count=count)
    scaled = probability * LEVELS
    whole = min(int(scaled), LEVELS - 1)
    # A comparison gives bytes 0 and 1; negated and widened they are lanes.
    lanes = np.negative((drawn < np.uint16(whole)).view(np.int8)).astype(np.int32)
    border = np.flatnonzero(drawn == np.uint16(whole))
    fine = _hash(border + start, _key(seed, model, tensor)) >> np.uint64(16)
    lanes[border[fine < np.uint64(min(int((scaled - whole) * _WIDE), _WIDE))]] = -1
    return lanes


def _key(seed: int, model: int, tensor: str) -> int:
    digest = hashlib.blake2b(f"{seed}\0{model}\0{tensor}".encode(), digest_size=16).digest()
    return int.from_bytes(digest, "little")


def _hash(indices: np.ndarray[Any, Any], key: int) -> np.ndarray[Any, np.dtype[np.uint64]]:
    """SplitMix64 (Steele et al., 2014) of index and key."""
    with np.errstate(over="ignore"):
        word = indices.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(key & ((1 << 64) - 1))
        word = (word ^ (word >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        word = (word ^ (word >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return word ^ (word >> np.uint64(31))
