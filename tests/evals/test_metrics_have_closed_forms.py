"""Metrics and intervals against closed forms, enumeration and each other."""

from __future__ import annotations

import itertools
import math
import random
import statistics

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pinnace.evals import intervals, metrics


@given(st.lists(st.booleans(), min_size=1, max_size=8), st.integers(1, 8))
@settings(max_examples=150, deadline=None)
def test_pass_at_k_is_the_mean_over_all_draws(results: list[bool], k: int) -> None:
    n, c = len(results), sum(results)
    draws = list(itertools.combinations(results, k))
    if not draws:
        assert metrics.pass_at(n, c, k) is None, "undefined is not one"
        assert metrics.pass_all(n, c, k) is None
        return
    assert metrics.pass_at(n, c, k) == pytest.approx(statistics.fmean(any(draw) for draw in draws))
    assert metrics.pass_all(n, c, k) == pytest.approx(statistics.fmean(all(draw) for draw in draws))


def test_pass_at_k_by_hand() -> None:
    assert metrics.pass_at(4, 1, 2) == pytest.approx(1 / 2)
    assert metrics.pass_at(8, 8, 8) == 1
    assert metrics.pass_at(8, 0, 8) == 0
    assert metrics.pass_at(7, 7, 8) is None
    assert metrics.pass_at(1000, 1, 1000) == 1
    assert metrics.average(0, 0) is None
    assert metrics.mean([None, 1.0, None, 0.0]) == 0.5
    assert metrics.mean([None]) is None


@pytest.mark.parametrize(
    ("answers", "k", "value"),
    [
        ([("a", True), ("b", False), ("a", True)], 3, 1.0),
        ([("a", True), ("b", False), ("b", False)], 3, 0.0),
        ([("a", True), ("b", False)], 2, 0.5),
        ([("a", False), ("b", False), ("b", False), ("a", True)], 1, 0.0),
        ([("a", True)], 2, None),
        ([], 0, None),
    ],
)
def test_the_majority_of_answers_decides(answers: list[tuple[str, bool]], k: int, value: float | None) -> None:
    assert metrics.majority(answers, k) == value


def test_calibration_errors_by_hand() -> None:
    right = [True] * 50 + [False] * 50
    assert metrics.rms_calibration_error([0.5] * 100, right) == pytest.approx(0)
    assert metrics.rms_calibration_error([1.0] * 100, right) == pytest.approx(0.5)
    two = [0.2] * 100 + [0.9] * 100
    verdicts = [True] * 20 + [False] * 80 + [True] * 50 + [False] * 50
    assert metrics.rms_calibration_error(two, verdicts) == pytest.approx(math.sqrt(0.5 * 0.4**2))
    assert metrics.rms_calibration_error(two, verdicts, drop_last=True) == pytest.approx(0)
    assert metrics.rms_calibration_error([], []) is None
    assert metrics.rms_calibration_error([0.5], [True], drop_last=True) is None
    assert metrics.expected_calibration_error(two, verdicts) == pytest.approx(0.2)
    assert metrics.expected_calibration_error([0.0, 1.0], [False, True]) == 0


def test_intervals_by_hand() -> None:
    found = intervals.analytic([0.0, 1.0, 0.5, 0.5])
    assert found is not None
    error = statistics.stdev([0.0, 1.0, 0.5, 0.5]) / 2
    assert (found.value, found.stderr) == (0.5, pytest.approx(error))
    assert found.high - found.value == pytest.approx(1.959964 * error, rel=1e-6)
    assert intervals.analytic([]) is None
    low, high = intervals.wilson(0.5, 100)
    assert (round(low, 4), round(high, 4)) == (0.4038, 0.5962)
    certain = intervals.analytic([1.0] * 10)
    assert certain is not None
    assert (certain.value, certain.high) == (1, 1)
    assert certain.low == pytest.approx(10 / (10 + 1.959964**2), rel=1e-6), "ten of ten is not certainty"


def test_equal_clusters_have_the_analytic_error() -> None:
    dice = random.Random(3)
    clusters = [[dice.randrange(2) for _ in range(4)] for _ in range(60)]
    means = [statistics.fmean(cluster) for cluster in clusters]
    found = intervals.analytic(means)
    assert found is not None
    assert intervals.clustered_stderr(clusters) == pytest.approx(found.stderr)
    naive = statistics.stdev([value for cluster in clusters for value in cluster]) / math.sqrt(240)
    same = [[value] * 4 for value in (dice.randrange(2) for _ in range(60))]
    assert (intervals.clustered_stderr(same) or 0) > 1.8 * naive, "attempts at one question are not independent"


def test_the_bootstrap_agrees_with_the_analytic_interval_and_repeats() -> None:
    dice = random.Random(5)
    values = [dice.choice([0, 0.25, 0.5, 1]) for _ in range(300)]
    one, two = intervals.bootstrap(values), intervals.analytic(values)
    assert one is not None
    assert two is not None
    assert one.low == pytest.approx(two.low, abs=0.005)
    assert one.high == pytest.approx(two.high, abs=0.005)
    assert intervals.bootstrap(values) == one


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    dice = random.Random(11)
    covered = 0
    for _ in range(400):
        values = [
            statistics.fmean(dice.random() < share for _ in range(4)) for share in (dice.random() for _ in range(80))
        ]
        found = intervals.analytic(values)
        assert found is not None
        covered += found.low <= 0.5 <= found.high
    assert 0.92 < covered / 400 < 0.98


def test_paired_comparison() -> None:
    first = [0.0] * 20 + [1.0] * 20
    second = [1.0] * 15 + [0.0] * 5 + [1.0] * 18 + [0.0] * 2
    found = intervals.compare(first, second)
    assert found is not None
    assert (found.questions, found.fixed, found.broken) == (40, 15, 2)
    assert found.difference.value == pytest.approx(13 / 40)
    assert found.mcnemar == pytest.approx(2 * sum(math.comb(17, count) for count in range(3)) / 2**17)
    assert found.permutation == pytest.approx(found.mcnemar, abs=0.002), "on single attempts both are the sign test"
    same = intervals.compare(first, first)
    assert same is not None
    assert (same.mcnemar, same.permutation, same.difference.value) == (1, 1, 0)
    assert intervals.compare([], []) is None
    assert intervals.mcnemar(1, 0) == 1
