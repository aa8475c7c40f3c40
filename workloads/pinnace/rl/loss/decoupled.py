"""Decoupled PPO: the trust region is centred on the proximal policy, the staleness is an importance weight."""

from __future__ import annotations

from dataclasses import replace

import torch

from .clipped import clipped
from .tokens import TokenLoss, Tokens, masked_sum


def decoupled(tokens: Tokens, *, clip_low: float = 0.2, clip_high: float = 0.28, weight_max: float = 5.0) -> TokenLoss:
    """(π_prox/μ) times PPO's clipped loss around π_prox (AReaL, Fu et al. 2025; Hilton et al. 2022).

    Tokens with a weight over `weight_max` are left out, as AReaL does. Raises ValueError without `prox_logp`.
    """
    if tokens.prox_logp is None:
        raise ValueError(
            "decoupled PPO needs prox_logp: recompute log-probs at the start of the step, or use `clipped`"
        )
    weight = torch.where(tokens.mask > 0, tokens.prox_logp - tokens.behaviour_logp, 0.0).exp().detach()
    kept = (weight <= weight_max).to(tokens.mask.dtype) * tokens.mask
    inner = clipped(replace(tokens, mask=kept), clip_low=clip_low, clip_high=clip_high)
    dropped = masked_sum(weight > weight_max, tokens.mask)
    return TokenLoss(inner.loss * weight, {**inner.sums, "weight_dropped": dropped})
