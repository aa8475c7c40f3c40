"""A sweep whose candidates are judged by EvalSuites: one pod merges them all, a later one publishes the best of them.

What is published is the candidate itself, byte for byte: exactly what was evaluated, with the same digest.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from pinnace_operator.api.merge import MergeSpec
from pinnace_operator.api.merge_status import SweepRow, SweepStatus

from pinnace.storage import RunDirectory, S3Uri
from pinnace.storage.artifacts import Published

from .plan import Plan
from .plot import svg
from .search import CANDIDATES, Trial
from .sweep import candidates


@dataclass(frozen=True)
class _Point:
    """A candidate in the picture: each benchmark, and their mean."""

    values: Mapping[str, str]
    lines: Mapping[str, float]
    winner: bool


def judged(environ: Mapping[str, str] = os.environ) -> SweepStatus | None:
    """The table that the operator hands over once the candidates are evaluated."""
    text = environ.get("PINNACE_SWEEP")
    return SweepStatus.model_validate_json(text) if text else None


def merge_all(
    trials: Sequence[Trial],
    run: RunDirectory,
    merge: Callable[[Plan, S3Uri], Published],
    told: Callable[[SweepStatus, int], None],
) -> SweepStatus:
    """Makes the candidates that are not there yet; `told` hears how many are."""
    folder, status = run.uri / CANDIDATES, SweepStatus(candidates=len(trials))
    for number, trial in enumerate(trials):
        merge(trial.plan, folder / trial.candidate.name)
        told(status, number + 1)
    return status.model_copy(update={"folder": str(folder)})


def draw(spec: MergeSpec, table: SweepStatus, run: RunDirectory) -> SweepStatus:
    """The table with the address of its picture; both are in `history/`."""
    tried = {each.name: each.values for each in candidates(spec)}
    points = [_Point(tried[row.candidate], _lines(row), row.candidate == table.winner) for row in table.rows]
    plot = run.write_history("sweep.svg", svg(points).encode())
    status = table.model_copy(update={"plot": plot})
    run.write_history("sweep.json", status.model_dump_json(by_alias=True, exclude_none=True).encode())
    return status


def _lines(row: SweepRow) -> dict[str, float]:
    lines = {each.name: float(each.score) for each in row.benchmarks}
    return lines if len(lines) == 1 else {**lines, "mean": float(row.score or 0)}
