"""Advantages equal their formulas, and the batch weights are the normalisation that was asked for."""

from __future__ import annotations

import statistics

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pinnace.rl.signal import advantage
from pinnace.rl.signal.denoise import Denoising, denoise
from pinnace.rl.signal.judged import judged
from pinnace.rl.signal.samples import Normalisation, Signal, build_samples
from pinnace.rl.types import Termination, Trajectory

from .conftest import groups, trajectory

rewards = st.lists(st.floats(-5, 5).map(lambda value: round(value, 3)), min_size=2, max_size=8)


def first(rows: list[tuple[float, ...]]) -> list[float]:
    return [row[0] for row in rows]


@given(rewards)
def test_advantages_equal_their_formulas(values: list[float]) -> None:
    group = [judged(trajectory(f"t{index}", reward=value)) for index, value in enumerate(values)]
    middle = statistics.fmean(values)
    assert first(advantage.mean(group)) == pytest.approx([value - middle for value in values])
    others = [statistics.fmean(values[:index] + values[index + 1 :]) for index in range(len(values))]
    assert first(advantage.leave_one_out(group)) == pytest.approx([v - o for v, o in zip(values, others, strict=True)])
    deviation = statistics.stdev(values) + 1e-4
    assert first(advantage.std(group)) == pytest.approx([(value - middle) / deviation for value in values])
    assert advantage.per_turn(group)[0] == pytest.approx(advantage.mean(group)[0])  # no step rewards: the same


@given(rewards)
def test_mean_advantages_of_a_group_sum_to_nothing(values: list[float]) -> None:
    group = [judged(trajectory(f"t{index}", reward=value)) for index, value in enumerate(values)]
    for method in (advantage.mean, advantage.std, advantage.leave_one_out):
        assert sum(first(method(group))) == pytest.approx(0, abs=1e-6)


def test_per_turn_advantages_credit_the_step_that_earned_it() -> None:
    group = [
        judged(trajectory("a", reward=1.0, turns=2, step_rewards=[0.5, 0.0])),
        judged(trajectory("b", reward=0.0, turns=2, step_rewards=[0.0, 0.5])),
        judged(trajectory("c", reward=1.0, turns=3, step_rewards=[0.0, 0.0, 0.0])),
    ]
    # returns from turn 0: 1.5, 0.5, 1.0; from turn 1: 1.0, 0.5, 1.0; turn 2 is reached once: r - mean(r) = 1 - 2/3
    assert advantage.per_turn(group) == [
        pytest.approx((0.5, 1.0 - 2.5 / 3)),
        pytest.approx((-0.5, 0.5 - 2.5 / 3)),
        pytest.approx((0.0, 1.0 - 2.5 / 3, 1 / 3)),
    ]


@given(st.lists(groups(least=2), min_size=1, max_size=4), st.sampled_from(["token", "sequence", "trajectory"]))
def test_weights_of_a_batch_sum_to_one(batch: list[list[Trajectory]], normalisation: Normalisation) -> None:
    renamed = [
        [trajectory(f"{index}-{member.id}", reward=member.reward, turns=len(member.turns),
                    termination=member.termination)
         for member in group]
        for index, group in enumerate(batch)
    ]  # fmt: skip
    samples = build_samples(
        [denoise(group, Denoising(long_failures="down-weight")) for group in renamed],
        Signal(normalisation=normalisation),
    )
    assume(samples)
    assert sum(sum(sample.weights) for sample in samples) == pytest.approx(1)
    for sample in samples:
        assert all(weight == 0 for weight, mask in zip(sample.weights, sample.loss_mask, strict=True) if not mask)


def weights(normalisation: Normalisation, **settings: int) -> dict[str, float]:
    """Sum of the weights by trajectory: `a` has 4 turns in 2 samples, `b` one turn; every turn has 3 tokens."""
    group = [trajectory("a", reward=1.0, turns=4, segments=2), trajectory("b", turns=1)]
    samples = build_samples([denoise(group, Denoising())], Signal(normalisation=normalisation, **settings))
    totals = {"a": 0.0, "b": 0.0}
    for sample in samples:
        totals[sample.trajectory_id] += sum(sample.weights)
    return totals


def test_each_normalisation_weighs_what_it_says() -> None:
    assert weights("token") == pytest.approx({"a": 12 / 15, "b": 3 / 15})
    assert weights("sequence") == pytest.approx({"a": 2 / 3, "b": 1 / 3})
    assert weights("trajectory") == pytest.approx({"a": 0.5, "b": 0.5})
    assert weights("constant", constant_tokens=24) == pytest.approx({"a": 12 / 48, "b": 3 / 48})


@given(st.integers(1, 4))
def test_fragmented_trajectories_weigh_no_more_than_others_per_trajectory(segments: int) -> None:
    group = [trajectory("a", reward=1.0, turns=4, segments=segments), trajectory("b", turns=4)]
    samples = build_samples([denoise(group, Denoising())], Signal(normalisation="trajectory"))
    assert sum(sum(sample.weights) for sample in samples if sample.trajectory_id == "a") == pytest.approx(0.5)


def test_a_down_weighted_failure_weighs_less_in_the_loss() -> None:
    group = [trajectory("a", reward=1.0), trajectory("b", termination=Termination.CONTEXT_LIMIT)]
    rules = Denoising(long_failures="down-weight", long_failures_weight=0.25)
    a, b = build_samples([denoise(group, rules)], Signal())
    assert sum(b.weights) == pytest.approx(sum(a.weights) / 4)


def test_samples_keep_what_the_sampler_said_about_each_token() -> None:
    made = trajectory("a", reward=1.0, turns=2, version=7)
    a, _ = build_samples([denoise([made, trajectory("b")], Denoising())], Signal(scale=2.0))
    (segment,) = made.segments
    assert a.ids == segment.ids
    for turn in segment.turns:
        assert a.behaviour_logprobs[turn.start : turn.end] == turn.behaviour_logprobs
        assert a.policy_versions[turn.start : turn.end] == turn.policy_versions
        assert set(a.advantages[turn.start : turn.end]) == {1.0}
    assert [version for version, mask in zip(a.policy_versions, a.loss_mask, strict=True) if not mask] == [-1] * 4


def test_rules_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="use `exclude`"):
        Denoising(long_failures_weight=0)
