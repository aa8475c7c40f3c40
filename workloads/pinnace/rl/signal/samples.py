"""Groups to training samples: one per segment, with an advantage and a weight for every token the model wrote."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from pinnace.rl.types import CONTEXT_VERSION, SETTINGS, Sample, Segment

from .advantage import ADVANTAGES
from .denoise import Denoised
from .judged import Judged

Normalisation = Literal["token", "sequence", "trajectory", "constant"]


@dataclass(frozen=True, kw_only=True)
class Signal:
    """How rewards become the loss.

    Attributes:
        advantage: a name in `ADVANTAGES`.
        normalisation: what the loss is a mean over. `token`: all tokens of the batch (DAPO, Yu et al. 2025, §3.3);
            `sequence`: token means of samples (GRPO); `trajectory`: token means of trajectories, so that one that
            forked into many samples weighs no more than another; `constant`: sums of trajectories over
            `constant_tokens` (Dr. GRPO).
        constant_tokens: the most tokens a trajectory may write.
        scale: factor of every advantage.
    """

    __pydantic_config__ = SETTINGS

    advantage: str = "mean"
    normalisation: Normalisation = "token"
    constant_tokens: int = 1
    scale: float = 1.0


def build_samples(groups: Sequence[Denoised], signal: Signal) -> list[Sample]:
    """Samples of one optimizer step's groups (those to refill are left out). Weights sum to 1, unless `constant`."""
    samples: list[Sample] = []
    for group in groups:
        if group.refill:
            continue
        advantages = ADVANTAGES[signal.advantage](group.members)
        for member, turns in zip(group.members, advantages, strict=True):
            by_turn = _by_turn(member, turns, signal.scale)
            made = [_sample(member, part, by_turn) for part in member.trajectory.segments]
            samples += [sample for sample in made if sample.trained_tokens]
    return _normalised(samples, signal)


def _by_turn(member: Judged, advantages: tuple[float, ...], scale: float) -> dict[int, float]:
    """The advantage of each turn that is trained."""
    order = [turn.index for turn in member.trajectory.turns]
    by_turn = dict(zip(order, advantages, strict=True)) if advantages else dict(member.own)
    for index, most in member.ceiling.items():
        by_turn[index] = min(by_turn.get(index, 0.0), most)
    return {index: value * scale for index, value in by_turn.items()}


def _sample(member: Judged, segment: Segment, by_turn: dict[int, float]) -> Sample:
    size = len(segment.ids)
    mask, versions = [False] * size, [CONTEXT_VERSION] * size
    logprobs, advantages, weights = [0.0] * size, [0.0] * size, [0.0] * size
    for turn in segment.turns:
        if turn.index not in by_turn:
            continue
        span, tokens = slice(turn.start, turn.end), turn.end - turn.start
        mask[span] = [True] * tokens
        logprobs[span], versions[span] = turn.behaviour_logprobs, turn.policy_versions
        advantages[span], weights[span] = [by_turn[turn.index]] * tokens, [member.weight] * tokens
    return Sample(
        trajectory_id=member.trajectory.id,
        group_id=member.trajectory.group_id,
        ids=segment.ids,
        loss_mask=tuple(mask),
        behaviour_logprobs=tuple(logprobs),
        policy_versions=tuple(versions),
        advantages=tuple(advantages),
        weights=tuple(weights),
    )


def _normalised(samples: list[Sample], signal: Signal) -> list[Sample]:
    """Divides each token's weight by the tokens of what it is averaged within, then makes the whole sum to 1."""
    parts = [_part(signal.normalisation, position, sample) for position, sample in enumerate(samples)]
    tokens: dict[object, int] = {}
    for key, sample in zip(parts, samples, strict=True):
        tokens[key] = tokens.get(key, 0) + sample.trained_tokens
    if signal.normalisation == "constant":
        divisors = dict.fromkeys(tokens, float(signal.constant_tokens * len(tokens)))
    else:
        total = sum(sum(sample.weights) / tokens[key] for key, sample in zip(parts, samples, strict=True))
        divisors = {key: count * total for key, count in tokens.items()}
    return [
        replace(sample, weights=tuple(weight / divisors[key] for weight in sample.weights))
        for key, sample in zip(parts, samples, strict=True)
    ]


def _part(normalisation: Normalisation, position: int, sample: Sample) -> object:
    """What the sample's tokens are averaged within."""
    if normalisation == "token":
        return None
    return position if normalisation == "sequence" else sample.trajectory_id
