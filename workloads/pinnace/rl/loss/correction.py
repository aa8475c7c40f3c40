"""Factors for tokens whose sampler and trainer disagree, or that are too far off-policy to be punished.

A correction returns a constant factor of shape [..., T] or [..., 1] and sums for the metrics. The trainer's side of the
ratio is `prox_logp`, or the current log-probs where that was not recomputed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from .tokens import Correction, Loss, TokenLoss, Tokens, masked_sum


def _mismatch(tokens: Tokens) -> Tensor:
    """log(π_trainer/μ), detached."""
    trainer = tokens.logp if tokens.prox_logp is None else tokens.prox_logp
    return torch.where(tokens.mask > 0, trainer.detach() - tokens.behaviour_logp, 0.0)


def icepop(tokens: Tokens, *, low: float = 0.5, high: float = 5.0) -> tuple[Tensor, dict[str, Tensor]]:
    """Leaves out tokens with a ratio outside [low, high] and weighs the others by it (IcePop, Ling team 2025)."""
    ratio = _mismatch(tokens).exp()
    inside = (ratio >= low) & (ratio <= high)
    return torch.where(inside, ratio, 0.0), {"icepop_masked": masked_sum(~inside, tokens.mask)}


def tis(tokens: Tokens, *, cap: float = 2.0) -> tuple[Tensor, dict[str, Tensor]]:
    """min(ratio, cap) a token: truncated importance sampling (Yao et al. 2025)."""
    ratio = _mismatch(tokens).exp()
    return ratio.clamp(max=cap), {"tis_capped": masked_sum(ratio > cap, tokens.mask)}


def geometric_mask(tokens: Tokens, *, low: float = 0.99, high: float = 1.01) -> tuple[Tensor, dict[str, Tensor]]:
    """Leaves out sequences whose geometric mean ratio is outside [low, high]: meant for long samples."""
    mean = tokens.sequence_mean(_mismatch(tokens))
    inside = (mean >= math.log(low)) & (mean <= math.log(high))
    outside = (~inside).expand_as(tokens.mask)
    return inside.to(tokens.mask.dtype), {"geometric_masked": masked_sum(outside, tokens.mask)}


def off_policy_mask(tokens: Tokens, *, threshold: float = 0.05) -> tuple[Tensor, dict[str, Tensor]]:
    """OPSM: leaves out negative tokens of sequences with mean log(μ/π) over `threshold` (DeepSeek-V3.2, 2025).

    Punishing what the policy no longer does has no end and no benefit; praise is kept.
    """
    drift = tokens.sequence_mean(torch.where(tokens.mask > 0, tokens.behaviour_logp - tokens.logp.detach(), 0.0))
    dropped = (tokens.advantage < 0) & (drift > threshold)
    return (~dropped).to(tokens.mask.dtype), {"opsm_masked": masked_sum(dropped, tokens.mask)}


CORRECTIONS: dict[str, Correction] = {
    "icepop": icepop,
    "tis": tis,
    "geometric-mask": geometric_mask,
    "opsm": off_policy_mask,
}


def corrected(loss: Loss, corrections: Sequence[Correction]) -> Loss:
    """`loss` times every correction's factor; the metrics of all."""
    return partial(_corrected, loss=loss, corrections=tuple(corrections))


def _corrected(tokens: Tokens, *, loss: Loss, corrections: Sequence[Correction]) -> TokenLoss:
    made = loss(tokens)
    value, sums = made.loss, dict(made.sums)
    for correction in corrections:
        factor, more = correction(tokens)
        value = value * factor
        sums |= more
    return TokenLoss(value, sums)
