"""Scores of k attempts, each per question. A question is (n graded attempts, c right ones)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from math import comb


def average(n: int, c: int) -> float | None:
    """avg@k of one question: c/n; None if nothing was graded."""
    return c / n if n else None


def pass_at(n: int, c: int, k: int) -> float | None:
    """Probability that one of k attempts drawn without replacement is right: 1 - C(n-c, k) / C(n, k).

    The unbiased estimator of Chen et al., arXiv 2107.03374. None for n < k, where it is undefined (not 1).
    """
    if n < k or k < 1:
        return None
    return 1 - comb(n - c, k) / comb(n, k)


def pass_all(n: int, c: int, k: int) -> float | None:
    """pass^k: probability that all of k attempts are right: C(c, k) / C(n, k) (Yao et al., arXiv 2406.12045)."""
    if n < k or k < 1:
        return None
    return comb(c, k) / comb(n, k)


def majority(answers: Sequence[tuple[str, bool]], k: int) -> float | None:
    """majority@k of one question: whether the commonest of its first k answers is right.

    Answers are (normalised text, right). A tie counts the share of its answers that are right: what drawing one of them
    gives on average. Two right answers in different words are different answers. None for fewer than k.
    """
    if len(answers) < k or k < 1:
        return None
    votes = Counter(text for text, _ in answers[:k])
    most = max(votes.values())
    winners = [text for text, count in votes.items() if count == most]
    verdicts = dict(reversed(answers[:k]))
    return sum(verdicts[text] for text in winners) / len(winners)


def mean(values: Sequence[float | None]) -> float | None:
    """Mean of what is defined; None if nothing is."""
    defined = [value for value in values if value is not None]
    return math.fsum(defined) / len(defined) if defined else None


def rms_calibration_error(
    confidences: Sequence[float], right: Sequence[bool], *, bin_size: int = 100, drop_last: bool = False
) -> float | None:
    """HLE's calibration error: root of the weighted mean square of |accuracy - confidence| over equal-sized bins.

    Args:
        confidences: in [0, 1].
        right: verdicts, in the same order.
        bin_size: answers in a bin, in order of confidence; what is left over joins the last bin.
        drop_last: leave the last bin out, as the authors' script does: for comparison with their leaderboard.

    None without answers, or if there is only the bin that is dropped.
    """
    if not confidences:
        return None
    pairs = sorted(zip(confidences, right, strict=True), key=lambda pair: pair[0])
    size = min(bin_size, len(pairs))
    starts = [index * size for index in range(len(pairs) // size)]
    bins = [pairs[start : start + size] for start in starts[:-1]] + [pairs[starts[-1] :]]
    kept = bins[:-1] if drop_last else bins
    if not kept:
        return None
    total = sum(len(part) * (_mean_of(part, 0) - _mean_of(part, 1)) ** 2 for part in kept)
    return math.sqrt(total / len(pairs))


def expected_calibration_error(confidences: Sequence[float], right: Sequence[bool], *, bins: int = 10) -> float | None:
    """Weighted mean of |accuracy - confidence| over `bins` bins of equal width (Guo et al., arXiv 1706.04599).

    A confidence on a border belongs to the bin below it; 0 belongs to the first.
    """
    if not confidences:
        return None
    parts: list[list[tuple[float, bool]]] = [[] for _ in range(bins)]
    for confidence, verdict in zip(confidences, right, strict=True):
        parts[max(0, min(bins - 1, math.ceil(round(confidence * bins, 9)) - 1))].append((confidence, verdict))
    return sum(len(part) * abs(_mean_of(part, 0) - _mean_of(part, 1)) for part in parts if part) / len(confidences)


def _mean_of(pairs: Sequence[tuple[float, bool]], side: int) -> float:
    return math.fsum(pair[side] for pair in pairs) / len(pairs)
