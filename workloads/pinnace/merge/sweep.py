"""A sweep: which merges to try, and which is best. Pure: who runs and scores them is somebody else's business."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from pinnace_operator.api.merge import LayerOverride, MergeSpec
from pinnace_operator.api.mergesweep import Sweep, SweepAxis


@dataclass(frozen=True)
class Candidate:
    """One merge of a sweep: its name, the values it tries, and its spec."""

    name: str
    values: Mapping[str, str]
    spec: MergeSpec


@dataclass(frozen=True)
class Score:
    """Held-out losses of one candidate on the two data sets; lower is better."""

    special: float
    general: float


@dataclass(frozen=True)
class Row:
    """One line of the sweep's table; `total` is the weighted loss, lower is better."""

    candidate: str
    values: Mapping[str, str]
    score: Score
    total: float
    winner: bool

    @property
    def lines(self) -> dict[str, float]:
        """What the picture shows of it."""
        return {"special loss": self.score.special, "general loss": self.score.general}


def candidates(spec: MergeSpec) -> list[Candidate]:
    """All combinations of the axes, in order. Without a sweep, the spec alone.

    A tried value replaces the parameter everywhere: it becomes the first entry of `layers`.
    """
    if spec.sweep is None:
        return [Candidate("merge", {}, spec)]
    labels = [_label(axis) for axis in spec.sweep.axes]
    return list(_combinations(spec, spec.sweep, labels))


def _combinations(spec: MergeSpec, sweep: Sweep, labels: Sequence[str]) -> Iterator[Candidate]:
    for name, values in sweep.candidates.items():
        tried = [
            LayerOverride(match="*", model=axis.model, parameter=axis.parameter, values=(value,))
            for axis, value in zip(sweep.axes, values, strict=True)
        ]
        changed = spec.model_copy(update={"layers": (*tried, *spec.layers), "sweep": None})
        yield Candidate(name, dict(zip(labels, values, strict=True)), changed)


def _label(axis: SweepAxis) -> str:
    return f"{axis.model}.{axis.parameter}" if axis.model else axis.parameter


def table(tried: Sequence[Candidate], scores: Mapping[str, Score], *, special_weight: float = 0.5) -> list[Row]:
    """The scored candidates in order, the best marked; among equals the first.

    Candidates without a score, or with one that is not finite, can't win and are left out.
    """
    found = []
    for candidate in tried:
        score = scores.get(candidate.name)
        if score is None:
            continue
        total = special_weight * score.special + (1 - special_weight) * score.general
        if math.isfinite(total):
            found.append((candidate, score, total))
    best = min(found, key=lambda row: row[2], default=None)
    return [
        Row(candidate.name, candidate.values, score, total, best is not None and candidate is best[0])
        for candidate, score, total in found
    ]


def losers(rows: Sequence[Row]) -> list[str]:
    """Candidates to remove with `retain: Winner`."""
    return [row.candidate for row in rows if not row.winner]
