"""GRPO with DAPO's clip-higher; with a recomputed proximal policy it is PPO's clipped surrogate around that."""

from __future__ import annotations

import torch

from .tokens import TokenLoss, Tokens, masked_sum


def clipped(tokens: Tokens, *, clip_low: float = 0.2, clip_high: float = 0.28) -> TokenLoss:
    """-min(r·A, clip(r, 1-ε_low, 1+ε_high)·A), r = π/π_old (GRPO, Shao et al. 2024; clip-higher, DAPO, Yu et al. 2025).

    Dr. GRPO (Liu et al. 2025) is this with the advantage `mean` and the normalisation `constant`; GRPO as published has
    `std` and `sequence`; DAPO has `std` and `token`.
    """
    ratio = tokens.log_ratio(tokens.old_logp).exp()
    bounded = ratio.clamp(1 - clip_low, 1 + clip_high)
    loss = -torch.minimum(ratio * tokens.advantage, bounded * tokens.advantage) * tokens.mask
    low = (ratio < 1 - clip_low) & (tokens.advantage < 0)
    high = (ratio > 1 + clip_high) & (tokens.advantage > 0)
    return TokenLoss(
        loss,
        {
            "clipped_low": masked_sum(low, tokens.mask),
            "clipped_high": masked_sum(high, tokens.mask),
            "ratio": masked_sum(ratio, tokens.mask),
        },
    )
