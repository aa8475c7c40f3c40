"""MiniRL: REINFORCE with an importance weight, where PPO's clipping is a mask."""

from __future__ import annotations

from .tokens import TokenLoss, Tokens, masked_sum


def minirl(tokens: Tokens, *, clip_low: float = 0.2, clip_high: float = 0.28) -> TokenLoss:
    """-M·sg(π/μ)·A·logp; M drops r > 1+ε_high with A > 0 and r < 1-ε_low with A < 0 (Zheng et al. 2025, "Stabilizing
    Reinforcement Learning with LLMs"). μ is the behaviour policy; r is the ratio to the old one.
    """
    weight = tokens.log_ratio(tokens.behaviour_logp).exp().detach()
    ratio = tokens.log_ratio(tokens.old_logp).exp().detach()
    high = (ratio > 1 + clip_high) & (tokens.advantage > 0)
    low = (ratio < 1 - clip_low) & (tokens.advantage < 0)
    kept = (~(high | low)).to(tokens.mask.dtype) * tokens.mask
    return TokenLoss(
        -kept * weight * tokens.advantage * tokens.trained_logp,
        {
            "clipped_low": masked_sum(low, tokens.mask),
            "clipped_high": masked_sum(high, tokens.mask),
            "ratio": masked_sum(ratio, tokens.mask),
        },
    )
