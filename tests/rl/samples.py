"""Samples of random tokens for the tiny model."""

from __future__ import annotations

import random

from pinnace.rl.types import Sample


def random_samples(
    count: int, *, seed: int = 0, shortest: int = 4, longest: int = 60, vocabulary: int = 1024
) -> list[Sample]:
    """`count` samples of different lengths; about half their tokens are trained; weights sum to 1."""
    dice = random.Random(seed)
    lengths = [dice.randint(shortest, longest) for _ in range(count)]
    masks = [[False, True, *(dice.random() < 0.5 for _ in range(length - 2))] for length in lengths]
    tokens = sum(map(sum, masks))
    made = []
    for number, (length, mask) in enumerate(zip(lengths, masks, strict=True)):
        advantage = dice.uniform(-1, 1)
        made.append(
            Sample(
                trajectory_id=str(number),
                group_id="g",
                ids=tuple(dice.randrange(3, vocabulary) for _ in range(length)),
                loss_mask=tuple(mask),
                behaviour_logprobs=tuple(-7.0 + dice.uniform(-1, 0) if on else 0.0 for on in mask),
                policy_versions=tuple(0 if on else -1 for on in mask),
                advantages=tuple(advantage if on else 0.0 for on in mask),
                weights=tuple(1 / tokens if on else 0.0 for on in mask),
            )
        )
    return made
