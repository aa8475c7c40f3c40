"""Runs a sweep: merges a candidate, scores it, goes on with the next; whatever is scored stays scored after a crash."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

from pinnace_operator.api.merge_status import SweepRow, SweepStatus
from pinnace_operator.api.mergesweep import HeldOutLoss, SweepRetain

from pinnace.storage import NotFound, RunDirectory, S3Uri, Storage
from pinnace.storage.artifacts import Published
from pinnace.storage.manifest import MANIFEST

from .errors import InvalidMerge
from .plan import Plan
from .plot import svg
from .sweep import Candidate, Row, Score, table

log = logging.getLogger(__name__)

CANDIDATES = "candidates"


@dataclass(frozen=True)
class Trial:
    """One candidate with its plan."""

    candidate: Candidate
    plan: Plan


@dataclass(frozen=True)
class Search:
    """One sweep of a run.

    Attributes:
        data: digest of the held-out samples: other data means other scores.
        merge: makes a candidate in a folder, or finds it there.
        score: computes its losses.
        told: hears the status of the sweep after each candidate.
    """

    metric: HeldOutLoss
    retain: SweepRetain
    data: str
    storage: Storage
    run: RunDirectory
    merge: Callable[[Plan, S3Uri], Published]
    score: Callable[[Published], Score]
    told: Callable[[SweepStatus], None]

    def best(self, trials: Sequence[Trial]) -> tuple[Trial, SweepStatus]:
        """Tries all, draws the picture, and returns the winner. Raises `InvalidMerge` if no loss is finite."""
        scores: dict[str, Score] = {}
        for trial in trials:
            name = trial.candidate.name
            scores[name] = self._known(trial) or self._tried(trial)
            if self.retain is SweepRetain.WINNER:
                remove(self.storage, self.run.uri / CANDIDATES / name)
            log.info("%s: special %.6g, general %.6g", name, scores[name].special, scores[name].general)
            self.told(self._status(trials, scores))
        rows = self._table(trials, scores)
        winner = next((row for row in rows if row.winner), None)
        if winner is None:
            raise InvalidMerge("sweep: no candidate has a finite loss: try values nearer to 0, or other models")
        plot = self.run.write_history("sweep.svg", svg(rows).encode())
        status = self._status(trials, scores).model_copy(update={"winner": winner.candidate, "plot": plot})
        self.run.write_history("sweep.json", status.model_dump_json(by_alias=True, exclude_none=True).encode())
        return next(trial for trial in trials if trial.candidate.name == winner.candidate), status

    def _tried(self, trial: Trial) -> Score:
        name = trial.candidate.name
        score = self.score(self.merge(trial.plan, self.run.uri / CANDIDATES / name))
        self.storage.write(self._place(name), json.dumps({**self._key(trial), **asdict(score)}).encode())
        return score

    def _known(self, trial: Trial) -> Score | None:
        """What an earlier attempt found, if it is about the same weights and data."""
        try:
            with self.storage.open(self._place(trial.candidate.name)) as stream:
                found = json.load(stream)
        except NotFound:
            return None
        same = {name: found.get(name) for name in ("plan", "data")} == self._key(trial)
        return Score(found["special"], found["general"]) if same else None

    def _key(self, trial: Trial) -> dict[str, str]:
        return {"plan": trial.plan.hash, "data": self.data}

    def _place(self, name: str) -> S3Uri:
        return self.run.history / "scores" / f"{name}.json"

    def _table(self, trials: Sequence[Trial], scores: Mapping[str, Score]) -> list[Row]:
        weight = float(self.metric.special_weight)
        return table([trial.candidate for trial in trials], scores, special_weight=weight)

    def _status(self, trials: Sequence[Trial], scores: Mapping[str, Score]) -> SweepStatus:
        return SweepStatus(
            candidates=len(trials),
            scored=len(scores),
            rows=tuple(_row(row) for row in self._table(trials, scores)),
        )


def _row(row: Row) -> SweepRow:
    return SweepRow(
        candidate=row.candidate,
        values=tuple(row.values.values()),
        special=f"{row.score.special:.6g}",
        general=f"{row.score.general:.6g}",
        total=f"{row.total:.6g}",
    )


def remove(storage: Storage, folder: S3Uri) -> None:
    """Deletes artifacts, manifests first: half of one is none."""
    found = [each.uri for each in storage.list(folder)]
    storage.store.delete([each for each in found if each.name == MANIFEST])
    storage.store.delete(found)
