"""Losses: a pure function an algorithm, over log-probs, advantages and a mask. This package imports torch."""

from __future__ import annotations

from .cispo import cispo
from .clipped import clipped
from .correction import CORRECTIONS, corrected
from .decoupled import decoupled
from .gspo import gspo
from .kl import with_kl
from .minirl import minirl
from .tokens import Loss, TokenLoss, Tokens

LOSSES: dict[str, Loss] = {
    "grpo": clipped,
    "dr-grpo": clipped,  # differs in advantage and normalisation (`rl.signal`), not a token
    "gspo": gspo,
    "cispo": cispo,
    "minirl": minirl,
    "decoupled-ppo": decoupled,
}

__all__ = ["CORRECTIONS", "LOSSES", "Loss", "TokenLoss", "Tokens", "corrected", "with_kl"]
