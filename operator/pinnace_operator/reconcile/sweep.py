"""A sweep with EvalSuites: what lies between the JobSet that merges the candidates and the one that publishes the best.

Everything follows from the status (where the candidates are, who has won) and from the suites as they are: one that is
deleted is made again.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from statistics import fmean
from typing import Any

from pinnace_operator.api.base import API_VERSION
from pinnace_operator.api.conditions import ConditionType, Reason, explain, find, is_true
from pinnace_operator.api.evalstatus import EvalSuiteStatus
from pinnace_operator.api.merge import MergeJobSpec
from pinnace_operator.api.merge_status import MOST_CANDIDATES, BenchmarkScore, MergeReport, SweepRow, SweepStatus
from pinnace_operator.api.status import InputRef
from pinnace_operator.builders.sweep import SUITE, suite, suite_name
from pinnace_operator.reconcile import life, pending, pods
from pinnace_operator.reconcile.job import Job
from pinnace_operator.reconcile.plan import Prune, Raw
from pinnace_operator.reconcile.recall import recall
from pinnace_operator.reconcile.situation import Situation
from pinnace_operator.reconcile.upstream import Need

TABLE = "sweep"
"""Under which name the pods that publish the winner find the table."""
_LOOK_AGAIN = 10


@dataclass(frozen=True)
class _Suite:
    """The EvalSuite of one candidate; `raw` is None before it is made."""

    number: int
    name: str
    candidate: str
    values: tuple[str, ...]
    raw: Raw | None

    @cached_property
    def status(self) -> EvalSuiteStatus:
        return recall(EvalSuiteStatus, (self.raw or {}).get("status"))

    @property
    def ended(self) -> bool:
        return any(is_true(self.status.conditions, each) for each in (ConditionType.COMPLETE, ConditionType.FAILED))

    @property
    def suspended(self) -> bool:
        return bool(self.raw and self.raw["spec"].get("suspend"))

    @cached_property
    def row(self) -> SweepRow | None:
        """Its line of the table; None without a score on each benchmark: others would be compared with less."""
        scores = [(each.name, _number(each.score)) for each in self.status.benchmarks]
        known = [score for _, score in scores if score is not None]
        if not is_true(self.status.conditions, ConditionType.COMPLETE) or not known or len(known) < len(scores):
            return None
        benchmarks = tuple(BenchmarkScore(name=name, score=f"{score:.1f}") for name, score in scores)
        return SweepRow(
            candidate=self.candidate, values=self.values, score=f"{fmean(known):.2f}", benchmarks=benchmarks
        )

    @property
    def trouble(self) -> str:
        """Why it has ended without a score."""
        failed = find(self.status.conditions, ConditionType.FAILED)
        return failed.message if failed and failed.status == "True" else "a benchmark has no score"

    def belongs_to(self, uid: str) -> bool:
        owners = self.raw["metadata"].get("ownerReferences") or () if self.raw else ()
        return any(each.get("controller") and each.get("uid") == uid for each in owners)

    def prune(self) -> Prune:
        uid = str(self.raw["metadata"]["uid"]) if self.raw else ""
        return Prune(api_version=API_VERSION, kind=SUITE, name=self.name, uid=uid)


def references(resource: Raw) -> tuple[tuple[str, str], ...]:
    """(kind, name) of the suites, while they are waited for."""
    sweep = (resource.get("status") or {}).get("sweep") or {}
    if "folder" not in sweep or "winner" in sweep:
        return ()
    count = min(int(sweep.get("candidates", 0)), MOST_CANDIDATES)
    return tuple((SUITE, suite_name(resource["metadata"]["name"], number)) for number in range(count))


def reports(job: Job) -> list[MergeReport]:
    """What is known from the worker, its last words first."""
    said = [outcome.merge for _, outcome in pods.outcomes(job.pods)]
    report = job.observed.progress
    told = (*reversed(said), report.merge if report else None, job.before)
    return [each for each in told if isinstance(each, MergeReport)]


def status(job: Job) -> SweepStatus | None:
    """The fullest table that the worker told; while EvalSuites run, what they have found."""
    known = _told(job)
    if known is None or known.folder is None or known.winner:
        return known
    rows = tuple(each.row for each in _suites(job) if each.row)
    best = max(rows, key=lambda row: float(row.score or 0), default=None)
    winner = best.candidate if best and len(rows) == known.candidates else None
    return known.model_copy(update={"scored": len(rows), "rows": rows, "winner": winner})


def evaluating(job: Job) -> Situation | None:
    """What is the case between the two JobSets; None before and after."""
    before, now = _before(job), status(job)
    if now is None or now.folder is None or (before and before.winner):
        return None
    suites = _suites(job)
    overdue = life.overdue(job)
    if overdue:
        left = (each.prune() for each in suites if each.belongs_to(job.identity.uid) and not each.ended)
        return replace(overdue, prune=(*overdue.prune, *left))
    if job.jobset or job.alive:
        return _leaving(job, told=before is not None and before.folder is not None)
    if now.winner:  # the status keeps it first
        text = f"All {now.candidates} candidates are evaluated; {now.winner} is published."
        return Situation(reason=Reason.EVALUATING, message=text, running=True)
    return _refused(job, suites) or _waiting(job, now, suites)


def needs(job: Job) -> tuple[Need, ...]:
    """The table, once there is a winner, for the pods that publish it."""
    now = _before(job)
    if now is None or now.folder is None or now.winner is None:
        return ()
    best = next((each.name for each in _suites(job) if each.candidate == now.winner), now.winner)
    ref = InputRef(ref=f"sweep.winner: {SUITE}/{best}")
    return (Need(TABLE, now.to_manifest(), ref),)


def _leaving(job: Job, *, told: bool) -> Situation:
    """The suites take the place of the pods that merged; the JobSet goes once the status knows what they said."""
    jobset = job.jobset
    prune = (jobset.prune(),) if told and jobset and not jobset.deleting else ()
    text = "All candidates are merged; their EvalSuites follow when the pods that merged them are gone."
    again = None if jobset else _LOOK_AGAIN
    return Situation(reason=Reason.EVALUATING, message=text, running=True, prune=prune, requeue_after=again)


def _refused(job: Job, suites: tuple[_Suite, ...]) -> Situation | None:
    """Suites that can't be made."""
    stranger = next((each for each in suites if each.raw and not each.belongs_to(job.identity.uid)), None)
    if stranger:
        fact = f"An EvalSuite named {stranger.name} exists already and is not this job's"
        text = job.explain(Reason.CHILD_CONFLICT, fact)
        return Situation(
            reason=Reason.CHILD_CONFLICT, message=text, stalled=True, waiting=True, requeue_after=_LOOK_AGAIN
        )
    if job.observed.apply_error:
        wait = pending.refused(job.observed.apply_error)
        return Situation(reason=wait.reason, message=wait.message, stalled=wait.stalled, waiting=True)
    return None


def _waiting(job: Job, now: SweepStatus, suites: tuple[_Suite, ...]) -> Situation:
    children = _children(job, now, suites)
    if job.spec.suspend:
        text = "spec.suspend is true, and so it is for the EvalSuites. Set it to false to go on."
        return Situation(reason=Reason.SUSPENDED, message=text, suspended=True, waiting=True, children=children)
    lost = next((each for each in suites if each.ended and not each.row), None)
    if lost:
        fact = f"{SUITE}/{lost.name} has ended without a score: {lost.trouble}"
        text = explain(Reason.INPUT_FAILED, fact, remedy="remove the cause and delete that EvalSuite: it is made again")
        return Situation(
            reason=Reason.INPUT_FAILED, message=text, running=True, stalled=True, children=children,
            requeue_after=life.deadline(job),
        )  # fmt: skip
    text = f"{now.scored} of {now.candidates} candidates are evaluated."
    return Situation(
        reason=Reason.EVALUATING, message=text, running=True, children=children, requeue_after=life.deadline(job)
    )


def _children(job: Job, now: SweepStatus, suites: tuple[_Suite, ...]) -> tuple[dict[str, Any], ...]:
    """Suites to make, so many as may run side by side, and those whose `suspend` is not the job's."""
    spec = _spec(job)
    template = spec.sweep.eval_suite_template if spec.sweep else None
    assert template is not None  # noqa: S101 -- only such a sweep has a folder
    running = [each for each in suites if each.raw and not each.ended]
    free = 0 if spec.suspend else max(0, template.parallel - len(running))
    fresh = [each for each in suites if each.raw is None][:free]
    changed = [each for each in running if each.suspended != spec.suspend]
    return tuple(
        suite(job.identity, spec, template, each.number, f"{now.folder}/{each.candidate}")
        for each in (*fresh, *changed)
    )


def _suites(job: Job) -> tuple[_Suite, ...]:
    sweep = _spec(job).sweep
    named = [
        (number, suite_name(job.identity.name, number), *each)
        for number, each in enumerate(sweep.candidates.items() if sweep else ())
    ]
    return tuple(_Suite(*each, raw=job.observed.upstreams.get((SUITE, each[1]))) for each in named)


def _told(job: Job) -> SweepStatus | None:
    sweeps = [each.sweep for each in reports(job) if each.sweep]
    fullest = max(sweeps, key=lambda each: (each.winner is not None, len(each.rows)), default=None)
    places = {name: next((found for each in sweeps if (found := getattr(each, name))), None) for name in _PLACES}
    return fullest.model_copy(update=places) if fullest else None


_PLACES = ("folder", "plot")


def _before(job: Job) -> SweepStatus | None:
    return job.before.sweep if isinstance(job.before, MergeReport) else None


def _spec(job: Job) -> MergeJobSpec:
    spec: MergeJobSpec = job.spec  # type: ignore[assignment]  # of this kind's jobs
    return spec


def _number(text: str | None) -> float | None:
    try:
        return float(text or "")
    except ValueError:
        return None
