"""How far a score may be from the truth, and whether two runs differ: the question is the unit that was sampled."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

_RESAMPLES = 10_000
_CHUNK = 1_000


@dataclass(frozen=True)
class Interval:
    """An estimate with its interval."""

    value: float
    low: float
    high: float
    stderr: float


def analytic(values: Sequence[float], *, level: float = 0.95) -> Interval | None:
    """Interval of a mean over questions, each of which is one value (the mean of its attempts).

    The variance is that between questions, which is the cluster-robust one for equal numbers of attempts (Miller, arXiv
    2411.00640). Where all questions agree it is zero, though nothing is certain: then Wilson's interval is given.
    """
    if not values:
        return None
    count, centre = len(values), math.fsum(values) / len(values)
    spread = math.fsum((value - centre) ** 2 for value in values) / (count - 1) if count > 1 else 0.0
    error = math.sqrt(spread / count)
    if error == 0:
        low, high = wilson(centre, count, level=level)
        return Interval(centre, low, high, error)
    reach = _z(level) * error
    return Interval(centre, max(0.0, centre - reach), min(1.0, centre + reach), error)


def clustered_stderr(clusters: Sequence[Sequence[float]]) -> float | None:
    """Standard error of the mean over all attempts, clustered by question, for any numbers of attempts.

    sqrt(C/(C-1) · Σ_c (Σ_i (x_ci - mean))²) / N (Miller, arXiv 2411.00640, eq. 4; corrected for few).
    None for fewer than two questions.
    """
    groups = [group for group in clusters if len(group)]
    total = sum(len(group) for group in groups)
    if len(groups) < 2:
        return None
    centre = math.fsum(value for group in groups for value in group) / total
    squares = math.fsum(math.fsum(value - centre for value in group) ** 2 for group in groups)
    return math.sqrt(squares * len(groups) / (len(groups) - 1)) / total


def bootstrap(values: Sequence[float], *, level: float = 0.95, seed: int = 0) -> Interval | None:
    """Percentile interval of the mean over questions, which are drawn with replacement, attempts and all."""
    if not values:
        return None
    data = np.asarray(values, dtype=np.float64)
    dice = np.random.default_rng(seed)
    means = np.concatenate(
        [data[dice.integers(0, len(data), (_CHUNK, len(data)))].mean(axis=1) for _ in range(_RESAMPLES // _CHUNK)]
    )
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(data.mean()), float(low), float(high), float(means.std(ddof=1)))


def wilson(share: float, count: int, *, level: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a share of `count`."""
    z = _z(level)
    middle = share + z * z / (2 * count)
    reach = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    scale = 1 + z * z / count
    return max(0.0, (middle - reach) / scale), min(1.0, (middle + reach) / scale)


@dataclass(frozen=True)
class Comparison:
    """Two runs on the same questions. `difference` is second minus first, with its interval.

    Attributes:
        questions: that both have graded attempts for.
        fixed, broken: questions of which the second run solves more, or fewer, of its attempts.
        mcnemar: exact two-sided p, from questions that one run solves (over half of its attempts) and the other not.
        permutation: two-sided p of the mean difference when the runs' names are swapped at random, by question.
    """

    questions: int
    difference: Interval
    fixed: int
    broken: int
    mcnemar: float
    permutation: float


def compare(
    first: Sequence[float], second: Sequence[float], *, level: float = 0.95, seed: int = 0
) -> Comparison | None:
    """Compares the questions' means of two runs, in the same order. None without questions."""
    if not first:
        return None
    gaps = np.asarray(second, dtype=np.float64) - np.asarray(first, dtype=np.float64)
    centre, count = float(gaps.mean()), len(gaps)
    error = float(gaps.std(ddof=1)) / math.sqrt(count) if count > 1 else 0.0
    reach = _z(level) * error
    up = sum(two > 0.5 >= one for one, two in zip(first, second, strict=True))
    down = sum(one > 0.5 >= two for one, two in zip(first, second, strict=True))
    return Comparison(
        questions=count,
        difference=Interval(centre, max(-1.0, centre - reach), min(1.0, centre + reach), error),
        fixed=int((gaps > 0).sum()),
        broken=int((gaps < 0).sum()),
        mcnemar=mcnemar(up, down),
        permutation=_permutation(gaps, seed),
    )


def mcnemar(up: int, down: int) -> float:
    """Exact two-sided p that of `up + down` changes so many go one way, if both ways are equally likely."""
    total = up + down
    if total == 0:
        return 1.0
    tail = sum(math.comb(total, count) for count in range(min(up, down) + 1))
    return min(1.0, float(2 * tail) / float(2**total))


def _permutation(gaps: npt.NDArray[np.float64], seed: int) -> float:
    moved = gaps[gaps != 0]
    if not len(moved):
        return 1.0
    observed, dice = abs(float(moved.sum())) - 1e-12, np.random.default_rng(seed)
    extreme = 0
    for _ in range(_RESAMPLES // _CHUNK):
        signs = dice.integers(0, 2, (_CHUNK, len(moved)), dtype=np.int8) * 2 - 1
        extreme += int((np.abs(signs @ moved) >= observed).sum())
    # The observed arrangement is one of those possible, so that p is never zero (Phipson & Smyth, 2010).
    return float(extreme + 1) / (_RESAMPLES + 1)


def _z(level: float) -> float:
    return NormalDist().inv_cdf((1 + level) / 2)
