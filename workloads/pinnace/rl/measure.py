"""One step in numbers."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Sequence

from .engine.protocol import Accumulated
from .signal.denoise import Denoised
from .types import Sample, Trajectory, Verdict


def measure(
    trajectories: Sequence[Trajectory],
    groups: Sequence[Denoised],
    samples: Sequence[Sample],
    made: Accumulated,
    *,
    version: int,
) -> dict[str, float]:
    """Reward of groups with something to learn, lengths, staleness in policy versions, mismatch of sampler and trainer,
    and what was masked and why.

    `version` is that of the weights that made `made`. `mismatch_kl` is the k3 estimate of KL(sampler, trainer) a token
    (Schulman 2020, http://joschu.net/blog/kl-approx.html): kernels and staleness together.
    """
    rewards = [one.reward.value for one in trajectories if one.reward.value is not None]
    tokens = max(1.0, made.sums["tokens"])
    ages = [
        version - written
        for sample in samples
        for written, trained in zip(sample.policy_versions, sample.loss_mask, strict=True)
        if trained
    ]
    differences = [
        here - there
        for sample, row in zip(samples, made.logprobs, strict=True)
        for there, here, trained in zip(sample.behaviour_logprobs, row, sample.loss_mask, strict=True)
        if trained
    ]
    reasons: Counter[str] = sum((group.counts for group in groups), Counter())
    return {
        "loss": made.loss,
        "reward_trained": statistics.fmean(rewards) if rewards else 0.0,
        "unknown": sum(one.reward.verdict is Verdict.UNKNOWN for one in trajectories) / len(trajectories),
        "turns": statistics.fmean(len(one.turns) for one in trajectories),
        "tokens_sampled": statistics.fmean(one.sampled_tokens for one in trajectories),
        "tokens_trained": made.sums["tokens"],
        "samples": len(samples),
        "staleness_mean": statistics.fmean(ages) if ages else 0.0,
        "staleness_max": max(ages, default=0),
        "mismatch_kl": statistics.fmean(map(_k3, differences)) if differences else 0.0,
        "mismatch_max": max(map(abs, differences), default=0.0),
        **{name: value / tokens for name, value in made.sums.items() if name != "tokens"},
        **{f"reason_{name}": count for name, count in sorted(reasons.items())},
    }


def _k3(difference: float) -> float:
    return math.exp(min(difference, 50.0)) - 1 - difference
