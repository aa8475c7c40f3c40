"""CISPO: the importance weight is capped, not the update, so that rare tokens keep their gradient."""

from __future__ import annotations

from .tokens import TokenLoss, Tokens, masked_sum


def cispo(tokens: Tokens, *, ratio_max: float = 5.0) -> TokenLoss:
    """-sg(min(r, r_max))·A·logp, r = π/π_old (MiniMax-M1, 2025, §3.1; no lower bound, as they train)."""
    ratio = tokens.log_ratio(tokens.old_logp).exp().detach()
    loss = -ratio.clamp(max=ratio_max) * tokens.advantage * tokens.trained_logp
    capped = ratio > ratio_max
    return TokenLoss(
        loss * tokens.mask,
        {"clipped_high": masked_sum(capped, tokens.mask), "ratio": masked_sum(ratio, tokens.mask)},
    )
