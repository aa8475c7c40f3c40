"""A batch through a policy: what every engine does the same way, micro-batch by micro-batch."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from pinnace.rl.loss import Loss, Tokens
from pinnace.rl.types import Sample

from .protocol import Accumulated, Logprobs, NotFinite
from .row import Row, row_of, spread, trained_values

Forward = Callable[[Row], tuple[Tensor, Tensor]]


@dataclass
class Batch:
    """One `accumulate` on one rank. The samples' weights hold the normalisation, so micro-batches just add up."""

    samples: Sequence[Sample]
    loss: Loss | None
    prox: Logprobs | None = None
    reference: Logprobs | None = None
    logprobs: dict[int, tuple[float, ...]] = field(default_factory=dict)  # by position in `samples`
    total: float = 0.0
    sums: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    not_finite: list[str] = field(default_factory=list)  # trajectories

    def micro_batch(self, forward: Forward, positions: Sequence[int], device: torch.device) -> Tensor:
        """Runs the samples at `positions` in one row; returns the loss to go backward from."""
        samples = [self.samples[position] for position in positions]
        row = Row.of(samples, device)
        logp, entropy = forward(row)
        loss = logp.sum() * 0.0  # so that a row without a trained token still has a graph
        for position, sample, part in zip(positions, samples, torch.split(logp, row.sizes), strict=True):
            self.logprobs[position] = spread(sample, part)
            if self.loss is not None:
                made = self.loss(self._tokens(position, part))
                weights = trained_values(sample, sample.weights, part)
                loss = loss + (made.loss * weights).sum()
                for name, value in made.sums.items():
                    self.sums[name] += float(value)
        self.sums["entropy"] += float(entropy.detach().sum())
        self.sums["tokens"] += sum(row.sizes)
        self.total += float(loss.detach())
        if not math.isfinite(float(loss.detach())):
            self.not_finite += [sample.trajectory_id for sample in samples]
        return loss

    def filler(self, forward: Forward, device: torch.device) -> Tensor:
        """A row of no weight, for a rank that has nothing to do while others have."""
        row = Row.of([_FILLER], device)
        return forward(row)[0].sum() * 0.0

    def accumulated(self) -> Accumulated:
        """Raises `NotFinite`: only here, so that no rank leaves the others waiting in the middle of a batch."""
        if self.not_finite:
            raise NotFinite(f"the loss is not finite; among the trajectories {', '.join(sorted(set(self.not_finite)))}")
        ordered = [self.logprobs[position] for position in range(len(self.samples))]
        return Accumulated(logprobs=ordered, loss=self.total, sums=dict(self.sums))

    def join(self, other: Batch) -> None:
        """Takes over what another rank did."""
        self.logprobs |= other.logprobs
        self.total += other.total
        self.not_finite += other.not_finite
        for name, value in other.sums.items():
            self.sums[name] += value

    def _tokens(self, position: int, logp: Tensor) -> Tokens:
        sample = self.samples[position]

        def values(stream: Sequence[float]) -> Tensor:
            return trained_values(sample, stream, logp)

        prox, reference = row_of(self.prox, position), row_of(self.reference, position)
        return Tokens(
            logp=logp,
            behaviour_logp=values(sample.behaviour_logprobs),
            advantage=values(sample.advantages),
            mask=torch.ones_like(logp),
            prox_logp=None if prox is None else values(prox),
            reference_logp=None if reference is None else values(reference),
        )


_FILLER = Sample(
    trajectory_id="filler",
    group_id="filler",
    ids=(0, 0),
    loss_mask=(False, True),
    behaviour_logprobs=(0.0, 0.0),
    policy_versions=(-1, 0),
    advantages=(0.0, 0.0),
    weights=(0.0, 0.0),
)
