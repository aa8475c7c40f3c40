"""What is written down is read back, and what can't be true is refused."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pinnace.rl.types import (
    InvalidReward,
    InvalidTurn,
    Reward,
    Sample,
    Segment,
    Trajectory,
    Turn,
    Verdict,
    dump_sample,
    dump_trajectory,
    load_sample,
    load_trajectory,
)

from .conftest import trajectories, trajectory

logprobs = st.floats(-50, 0)


@given(trajectories())
def test_a_trajectory_survives_json(made: Trajectory) -> None:
    assert load_trajectory(dump_trajectory(made)) == made


@given(st.lists(st.tuples(st.integers(0, 10**6), logprobs, st.integers(0, 99), st.floats(-9, 9)), min_size=1))
def test_a_sample_survives_json_to_the_last_bit(tokens: list[tuple[int, float, int, float]]) -> None:
    ids, behaviour, versions, advantages = zip(*tokens, strict=True)
    made = Sample(
        trajectory_id="t",
        group_id="g",
        ids=ids,
        loss_mask=(False, *(True for _ in ids[1:])),
        behaviour_logprobs=behaviour,
        policy_versions=versions,
        advantages=advantages,
        weights=advantages,
    )
    assert load_sample(dump_sample(made)) == made


@pytest.mark.parametrize("value", [math.nan, math.inf, None])
def test_a_reward_that_is_no_number_is_refused(value: float | None) -> None:
    with pytest.raises(InvalidReward, match="correct the grader"):
        Reward(verdict=Verdict.RIGHT, value=value)


def test_unknown_has_no_value_that_could_enter_a_mean() -> None:
    assert Reward.unknown("judge", "timed out").value is None
    with pytest.raises(InvalidReward):
        Reward(verdict=Verdict.UNKNOWN, value=0.0, cause="judge")


@pytest.mark.parametrize(
    ("behaviour", "versions", "complaint"),
    [
        ((-1.0, math.nan), (0, 0), "log-prob nan"),
        ((-1.0, -math.inf), (0, 0), "log-prob -inf"),
        ((-1.0, 0.5), (0, 0), "log-prob 0.5"),
        ((-1.0,), (0, 0), "2 tokens with 1 log-probs"),
        ((-1.0, -1.0), (0,), "1 policy versions"),
        ((-1.0, -1.0), (0, -3), "policy version -3"),
    ],
)
def test_what_a_broken_server_returns_is_refused(
    behaviour: tuple[float, ...], versions: tuple[int, ...], complaint: str
) -> None:
    with pytest.raises(InvalidTurn, match=complaint):
        Turn(start=0, end=2, behaviour_logprobs=behaviour, policy_versions=versions)


def test_overlapping_turns_are_refused() -> None:
    def turn(start: int, end: int) -> Turn:
        tokens = end - start
        return Turn(start=start, end=end, behaviour_logprobs=(-1.0,) * tokens, policy_versions=(0,) * tokens)

    with pytest.raises(InvalidTurn, match="overlaps"):
        Segment(ids=(1, 2, 3, 4), turns=(turn(1, 3), turn(2, 4)))


def test_turns_are_told_in_the_order_of_sampling_whatever_their_segment() -> None:
    made = trajectory(turns=5, segments=2, version=3)
    assert [turn.index for turn in made.turns] == [0, 1, 2, 3, 4]
    assert made.oldest_version == 3


def test_the_pure_modules_import_no_torch() -> None:
    modules = (
        "types",
        "signal.denoise",
        "signal.samples",
        "capture.merge",
        "capture.proxy",
        "scheduler",
        "store",
        "pack",
    )
    code = (
        "; ".join(f"import pinnace.rl.{module}" for module in modules) + "; import sys; print('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
