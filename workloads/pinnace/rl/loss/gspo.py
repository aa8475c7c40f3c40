"""GSPO: one importance ratio a sequence, the geometric mean of its tokens' ratios."""

from __future__ import annotations

import torch

from .tokens import TokenLoss, Tokens, masked_sum


def gspo(tokens: Tokens, *, clip_low: float = 3e-4, clip_high: float = 4e-4) -> TokenLoss:
    """-min(s·A, clip(s)·A), s = exp(mean log(π/π_old)) (Zheng et al. 2025; this is their GSPO-token form).

    Written as s·exp(logp - sg(logp)) a token, whose gradient is s·∇logp: a coefficient logp/sg(logp) would turn it
    around, because log-probs are negative.
    """
    log_sequence = tokens.sequence_mean(tokens.log_ratio(tokens.old_logp))
    ratio = (log_sequence.detach() + tokens.log_ratio(tokens.logp.detach())).exp()
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
