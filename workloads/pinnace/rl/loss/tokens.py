"""What a loss function gets and gives. Losses import torch; nothing else of the core's decisions does.

A loss is a function of one training sequence, or of a batch of padded ones: tensors of shape [..., T] in which the last
dimension is the sequence. It returns a loss for every token; the caller multiplies by the samples' weights and sums.
Put another algorithm into a file of its own and into `LOSSES`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """Shape [..., T] each; natural log-probs of the ids that were sampled.

    Attributes:
        logp: under the weights being trained; carries the gradient.
        behaviour_logp: as the sampler drew, from its own kernels and maybe older weights.
        prox_logp: of the weights at the start of this step in the trainer's kernels, if they were recomputed.
        advantage: constant.
        mask: 1 where the model wrote and is trained, else 0.
        reference_logp: under the reference model, for a KL term.
    """

    logp: Tensor
    behaviour_logp: Tensor
    advantage: Tensor
    mask: Tensor
    prox_logp: Tensor | None = None
    reference_logp: Tensor | None = None

    @property
    def old_logp(self) -> Tensor:
        """What the trust region is centred on: the proximal policy if it was recomputed, else the behaviour policy."""
        return self.behaviour_logp if self.prox_logp is None else self.prox_logp

    def log_ratio(self, old: Tensor) -> Tensor:
        """log(π/π_old), 0 outside the mask (where log-probs may be anything)."""
        return torch.where(self.mask > 0, self.logp - old, 0.0)

    @property
    def trained_logp(self) -> Tensor:
        """`logp` with its gradient, 0 outside the mask."""
        return torch.where(self.mask > 0, self.logp, 0.0)

    def sequence_mean(self, values: Tensor) -> Tensor:
        """Mean over each sequence's trained tokens, shape [..., 1]; 0 for a sequence without any."""
        return (values * self.mask).sum(-1, keepdim=True) / self.mask.sum(-1, keepdim=True).clamp(min=1)


@dataclass(frozen=True)
class TokenLoss:
    """Loss of every token, shape [..., T] and 0 outside the mask, and sums over tokens for the metrics.

    `sums[name]` divided by the batch's trained tokens is the metric: sums of micro-batches simply add up.
    """

    loss: Tensor
    sums: dict[str, Tensor] = field(default_factory=dict)


Loss = Callable[[Tokens], TokenLoss]
Correction = Callable[[Tokens], tuple[Tensor, dict[str, Tensor]]]


def masked_sum(values: Tensor, mask: Tensor) -> Tensor:
    """A detached scalar for the metrics."""
    return torch.where(mask > 0, values.detach().to(mask.dtype), 0.0).sum()
