"""A leash to the reference model."""

from __future__ import annotations

from functools import partial

import torch

from .tokens import Loss, TokenLoss, Tokens, masked_sum


def with_kl(loss: Loss, *, coefficient: float) -> Loss:
    """Adds coefficient · k3, where k3 = exp(d) - d - 1 and d = log(π_ref/π) (Schulman 2020, as in GRPO)."""
    return partial(_with_kl, loss=loss, coefficient=coefficient)


def _with_kl(tokens: Tokens, *, loss: Loss, coefficient: float) -> TokenLoss:
    if tokens.reference_logp is None:
        raise ValueError("a KL term needs reference_logp: name a reference model, or set its coefficient to 0")
    made = loss(tokens)
    difference = torch.where(tokens.mask > 0, tokens.reference_logp - tokens.logp, 0.0)
    k3 = (difference.exp() - difference - 1) * tokens.mask
    return TokenLoss(made.loss + coefficient * k3, {**made.sums, "kl_reference": masked_sum(k3, tokens.mask)})
