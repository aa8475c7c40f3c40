"""Noise is filtered and counted, not learned. Every rule as a table, and what holds for any group."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pinnace.rl.signal.denoise import Denoising, denoise
from pinnace.rl.signal.samples import Signal, build_samples
from pinnace.rl.types import Fault, Reward, Termination, Trajectory

from .conftest import groups, trajectory, unknown_rewards

RIGHT, WRONG = 1.0, 0.0
INFRA, JUDGE = Reward.unknown("infrastructure"), Reward.unknown("judge", "timed out")


@dataclass(frozen=True)
class Case:
    """A group of trajectories, the rules, and what is trained: the advantages of each member's turns (None: not)."""

    name: str
    group: list[Trajectory]
    rules: Denoising
    expected: list[list[float | None]] | str  # a string: refilled, for this reason
    counts: dict[str, int] = field(default_factory=dict)


def long(name: str, reward: Reward | float = WRONG, **kwargs: object) -> Trajectory:
    return trajectory(name, reward=reward, termination=Termination.TURN_LIMIT, **kwargs)  # type: ignore[arg-type]


CASES = [
    Case("plain", [trajectory("a", reward=RIGHT), trajectory("b")], Denoising(), [[0.5, 0.5], [-0.5, -0.5]]),
    Case(
        "infrastructure and judge failures are unknown",
        [trajectory("a", reward=RIGHT), trajectory("b"), trajectory("c", reward=INFRA), trajectory("d", reward=JUDGE)],
        Denoising(),
        [[0.5, 0.5], [-0.5, -0.5], [None, None], [None, None]],
        {"unknown_infrastructure": 1, "unknown_judge": 1},
    ),
    Case(
        "an episode that infrastructure ended is unknown even if a grader called it wrong",
        [trajectory("a", reward=RIGHT), trajectory("b"), trajectory("c", termination=Termination.INFRASTRUCTURE)],
        Denoising(),
        [[0.5, 0.5], [-0.5, -0.5], [None, None]],
        {"unknown_infrastructure": 1},
    ),
    Case(
        "long failures are excluded from loss and baseline",
        [trajectory("a", reward=RIGHT), trajectory("b"), long("c"), long("d")],
        Denoising(long_failures="exclude"),
        [[0.5, 0.5], [-0.5, -0.5], [None, None], [None, None]],
        {"long_failure_exclude": 2},
    ),
    Case(
        "a success at the limit is a success",
        [long("a", RIGHT), trajectory("b")],
        Denoising(long_failures="exclude"),
        [[0.5, 0.5], [-0.5, -0.5]],
    ),
    Case(
        "long failures keep the credit of their steps",
        [trajectory("a", reward=RIGHT), trajectory("b"), long("c", step_rewards=[1.0, None, 0.0], turns=3)],
        Denoising(long_failures="step-credit"),
        [[0.5, 0.5], [-0.5, -0.5], [0.5, None, -0.5]],
        {"long_failure_step-credit": 1},
    ),
    Case(
        "long failures are down-weighted, in the baseline too",
        [trajectory("a", reward=RIGHT), trajectory("b"), long("c"), long("d")],
        Denoising(long_failures="down-weight", long_failures_weight=0.5),
        [[2 / 3] * 2, [-1 / 3] * 2, [-1 / 3] * 2, [-1 / 3] * 2],
        {"long_failure_down-weight": 2},
    ),
    Case(
        "long failures are kept when the rule is off",
        [trajectory("a", reward=RIGHT), long("b")],
        Denoising(long_failures="keep"),
        [[0.5, 0.5], [-0.5, -0.5]],
    ),
    Case(
        "a success without work is not learned",
        [trajectory("a", reward=RIGHT, turns=1), trajectory("b", reward=RIGHT), trajectory("c")],
        Denoising(short_success_turns=1),
        [[None], [0.5, 0.5], [-0.5, -0.5]],
        {"short_success": 1},
    ),
    Case(
        "a malformed turn of a success is punished, the other turns are not",
        [trajectory("a", reward=RIGHT, turns=3, faults={1: Fault.FORMAT}), trajectory("b")],
        Denoising(fault_penalty=0.25),
        [[0.5, -0.25, 0.5], [-0.5, -0.5]],
        {"fault_format": 1},
    ),
    Case(
        "a fault in a failure costs at least what the failure costs",
        [trajectory("a", reward=RIGHT), trajectory("b", faults={0: Fault.REPETITION})],
        Denoising(fault_penalty=0.25),
        [[0.5, 0.5], [-0.5, -0.5]],
        {"fault_repetition": 1},
    ),
    Case(
        "an episode that ended by a fault punishes only its last turn",
        [trajectory("a", reward=RIGHT), trajectory("b"), trajectory("c", turns=3, termination=Termination.MALFORMED)],
        Denoising(fault_penalty=0.25),
        [[0.5, 0.5], [-0.5, -0.5], [None, None, -0.25]],
        {"fault_format": 1},
    ),
    Case(
        "a fault before an outage is still the model's own",
        [trajectory("a", reward=RIGHT), trajectory("b"), trajectory("c", reward=INFRA, faults={0: Fault.FORMAT})],
        Denoising(fault_penalty=0.25),
        [[0.5, 0.5], [-0.5, -0.5], [-0.25, None]],
        {"unknown_infrastructure": 1, "fault_format": 1},
    ),
    Case("all right", [trajectory("a", reward=RIGHT), trajectory("b", reward=RIGHT)], Denoising(), "zero_variance",
         {"group_zero_variance": 1}),
    Case(
        "equal only because failures were excluded",
        [trajectory("a", reward=RIGHT), trajectory("b", reward=RIGHT), long("c")],
        Denoising(),
        "zero_variance_by_exclusion",
        {"long_failure_exclude": 1, "group_zero_variance_by_exclusion": 1},
    ),
    Case("nothing to compare with", [trajectory("a", reward=RIGHT), trajectory("b", reward=JUDGE)], Denoising(),
         "too_few_known", {"unknown_judge": 1, "group_too_few_known": 1}),
    Case(
        "shorter successes are a little better, by rank",
        [trajectory("a", reward=RIGHT, turns=1), trajectory("b", reward=RIGHT, turns=50), trajectory("c", turns=1)],
        Denoising(shape_by="turns", shape_scale=0.1),
        [[1.1 - 2 / 3], [0.9 - 2 / 3] * 50, [-2 / 3]],
        {"shaped": 2},
    ),
    Case(
        "shaping does not make a group of equals worth training",
        [trajectory("a", reward=RIGHT, turns=1), trajectory("b", reward=RIGHT, turns=2)],
        Denoising(shape_by="turns"),
        "zero_variance",
        {"shaped": 2, "group_zero_variance": 1},
    ),
]  # fmt: skip


def trained(group: list[Trajectory], rules: Denoising, signal: Signal | None = None) -> list[list[float | None]]:
    """The advantage of every turn, None for one that is not in the loss."""
    samples = build_samples([denoise(group, rules)], signal or Signal())
    found: dict[tuple[str, int], float] = {}
    for member in group:
        mine = iter(sample for sample in samples if sample.trajectory_id == member.id)
        for part in member.segments:
            sample = next((one for one in mine), None) if part.turns else None
            for turn in part.turns:
                if sample and sample.ids == part.ids and sample.loss_mask[turn.start]:
                    assert set(sample.advantages[turn.start : turn.end]) == {sample.advantages[turn.start]}
                    found[member.id, turn.index] = sample.advantages[turn.start]
    return [[found.get((member.id, turn.index)) for turn in member.turns] for member in group]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_rules(case: Case) -> None:
    result = denoise(case.group, case.rules)
    assert dict(result.counts) == case.counts
    if isinstance(case.expected, str):
        assert result.refill == case.expected
        assert build_samples([result], Signal()) == []
    else:
        assert result.refill is None
        rows = trained(case.group, case.rules)
        for got, wanted in zip(rows, case.expected, strict=True):
            assert got == pytest.approx(wanted, abs=1e-12)


def test_reserved_long_failures_are_drawn_by_seed_and_not_more_than_asked() -> None:
    group = [trajectory("a", reward=RIGHT), trajectory("b"), *(long(f"l{i}") for i in range(5))]

    def kept(seed: int) -> list[str]:
        result = denoise(group, Denoising(long_failures="reserve", long_failures_reserved=2, seed=seed))
        assert result.counts == Counter({"long_failure_kept": 2, "long_failure_reserve": 3})
        return [member.trajectory.id for member in result.members if "long_failure_kept" in member.reasons]

    assert kept(1) == kept(1)
    assert len({tuple(kept(seed)) for seed in range(20)}) > 1


@given(
    groups(least=2),
    st.lists(unknown_rewards, min_size=1, max_size=4),
    st.sampled_from(["mean", "leave-one-out", "std", "per-turn"]),
)
def test_unknown_never_enters_a_baseline(group: list[Trajectory], unknown: list[Reward], method: str) -> None:
    rules = Denoising(refill_zero_variance=False, long_failures="down-weight", shape_by="turns")
    signal = Signal(advantage=method)
    noise = [trajectory(f"u{position}", reward=reward, turns=3) for position, reward in enumerate(unknown)]
    alone, crowded = trained(group, rules, signal), trained(group + noise, rules, signal)
    assert crowded[: len(group)] == alone
    assert all(value is None for row in crowded[len(group) :] for value in row)


@given(groups(), st.randoms(use_true_random=False))
def test_the_order_of_a_group_does_not_matter(group: list[Trajectory], dice: random.Random) -> None:
    rules = Denoising(refill_zero_variance=False, shape_by="tokens")
    order = list(range(len(group)))
    dice.shuffle(order)
    shuffled = trained([group[position] for position in order], rules)
    plain = trained(group, rules)
    for row, position in zip(shuffled, order, strict=True):
        assert row == pytest.approx(plain[position])


@given(groups())
def test_whatever_is_not_trained_is_counted(group: list[Trajectory]) -> None:
    result = denoise(group, Denoising())
    for member in result.members:
        if member.counts < 1:
            assert member.reasons
    rows = trained(group, Denoising(refill_zero_variance=False))
    for member, row in zip(result.members, rows, strict=True):
        assert member.reasons or all(value is not None for value in row)


@given(groups())
def test_a_failure_is_never_rewarded_and_a_fault_never_reinforced(group: list[Trajectory]) -> None:
    for member, row in zip(group, trained(group, Denoising(fault_penalty=0.5)), strict=True):
        for turn, advantage in zip(member.turns, row, strict=True):
            if advantage is not None and turn.fault is not None:
                assert advantage <= -0.5


# --- AgentRL's bugs (reference: "B, F"), none of which may exist here ---


def test_f18_shaping_by_length_has_an_effect_on_the_advantages() -> None:
    """AgentRL shaped `record.score` while advantages read `sample.score`: no effect at all."""
    group = [trajectory("a", reward=RIGHT, turns=1), trajectory("b", reward=RIGHT, turns=9), trajectory("c")]
    plain, shaped = trained(group, Denoising()), trained(group, Denoising(shape_by="turns"))
    assert plain[0][0] == plain[1][0]
    assert shaped[0][0] > plain[0][0] > shaped[1][0]  # type: ignore[operator]
    assert sum(member.reward or 0 for member in denoise(group, Denoising(shape_by="turns")).members) == pytest.approx(2)


def test_f19_a_judge_failure_is_not_a_zero_in_the_baseline_or_in_the_variance() -> None:
    """AgentRL scored a failed judge 0: it biased every leave-one-out baseline and opened the variance gate."""
    signal = Signal(advantage="leave-one-out")
    group = [trajectory("a", reward=RIGHT), trajectory("b", reward=RIGHT), trajectory("c", reward=WRONG)]
    noisy = [*group, *(trajectory(f"j{i}", reward=JUDGE) for i in range(5))]
    assert trained(noisy, Denoising(), signal)[:3] == trained(group, Denoising(), signal)
    assert denoise([group[0], group[1], trajectory("j", reward=JUDGE)], Denoising()).refill == "zero_variance"


def test_no_rule_hides_another() -> None:
    """AgentRL's `balance_sample` (default true) returned before its other rules ran."""
    group = [
        trajectory("a", reward=RIGHT), trajectory("b"), long("c"), trajectory("d", reward=JUDGE),
        trajectory("e", reward=RIGHT, turns=1), trajectory("f", faults={0: Fault.FORMAT}),
    ]  # fmt: skip
    counts = denoise(group, Denoising(short_success_turns=1, shape_by="turns")).counts
    assert set(counts) == {"long_failure_exclude", "unknown_judge", "short_success", "fault_format"}
