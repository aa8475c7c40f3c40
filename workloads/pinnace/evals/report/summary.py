"""The summary of one benchmark under one configuration: everything that a report says, as data."""

from __future__ import annotations

import statistics
import sys
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

from .. import intervals, metrics
from ..graders import Grade, Verdict
from ..plan import Plan
from ..records import Record, Unit
from ..worker import Spending

_CURVE = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True)


class Score(_Part):
    """avg@k with its intervals, as shares in [0, 1].

    Attributes:
        low, high: analytic 95 % interval, clustered by question.
        boot_low, boot_high: 95 % by bootstrap over questions.
        if_unknown_wrong, if_unknown_right: what it would be if all that the judge failed on were wrong, or right.
    """

    value: float
    low: float
    high: float
    stderr: float
    boot_low: float
    boot_high: float
    if_unknown_wrong: float
    if_unknown_right: float
    questions: int


class AttemptResult(_Part):
    """One attempt in the table. `verdict` is right, wrong, unknown, or unfinished (which counts as not solved)."""

    attempt: int
    verdict: str
    answer: str | None = None
    termination: str = ""
    turns: int = 0
    seconds: float = 0.0
    tokens: int = 0
    explanation: str = ""
    confidence: int | None = None


class ItemResult(_Part):
    """One question in the table."""

    item: str
    question: str
    reference: str
    groups: dict[str, str]
    attempts: list[AttemptResult]

    @property
    def counts(self) -> tuple[int, int]:
        """(graded attempts, right ones); what did not finish is graded as not solved."""
        verdicts = [attempt.verdict for attempt in self.attempts]
        return len(verdicts) - verdicts.count("unknown"), verdicts.count("right")

    @property
    def share(self) -> float | None:
        return metrics.average(*self.counts)


class GraderInfo(_Part):
    """How it was graded. `comparable` is false if the judge is not the profile's."""

    profile: str
    name: str
    digest: str
    judge: str | None = None
    profile_judge: str | None = None
    note: str = ""
    comparable: bool = True


class Efforts(_Part):
    """What it took. Medians and 90th percentiles are over finished attempts; rates over calls."""

    turns: float = 0
    turns_p90: float = 0
    seconds: float = 0
    seconds_p90: float = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    second_model_tokens: int = 0
    judge_tokens: int = 0
    cost: float | None = None
    calls: int = 0
    tool_error_rate: float = 0
    infrastructure_rate: float = 0
    duplicate_rate: float = 0
    folds: int = 0
    refined: int = 0
    refinement_fallbacks: int = 0


class Summary(_Part):
    """One benchmark under one configuration; see the fields' names, all shares in [0, 1]."""

    benchmark: str
    title: str
    split: str
    revision: str
    digest: str
    licence: str
    config: dict[str, Any]
    config_hash: str
    grader: GraderInfo
    attempts: int
    questions: int
    planned: int
    finished: int
    right: int
    wrong: int
    unknown: int
    unfinished: int
    score: Score | None
    pass_at: dict[int, float | None]
    pass_all: dict[int, float | None]
    undefined: dict[int, int]
    majority: float | None
    calibration: dict[str, float | None]
    groups: dict[str, dict[str, Score | None]]
    terminations: dict[str, int]
    not_the_agent: int
    blocked: int
    canaries: int
    efforts: Efforts
    warnings: list[str]
    items: list[ItemResult]

    @property
    def ks(self) -> list[int]:
        return list(self.pass_at)


def summarise_run(
    plan: Plan, records: Mapping[Unit, Record], grades: Mapping[Unit, Grade], *, spending: Spending | None = None
) -> Summary:
    """The summary. Denominators are those of the plan: an attempt without a record counts as not solved."""
    items = _items(plan, records, grades)
    verdicts = Counter(attempt.verdict for item in items for attempt in item.attempts)
    benchmark, loaded = plan.loaded.benchmark, plan.loaded
    curve = [k for k in _CURVE if k <= plan.attempts]
    curve += [plan.attempts] if plan.attempts not in curve else []
    counts = [item.counts for item in items]
    return Summary(
        benchmark=benchmark.name,
        title=benchmark.title,
        split=loaded.split,
        revision=loaded.revision,
        digest=loaded.digest,
        licence=benchmark.licence,
        config=dict(plan.config),
        config_hash=plan.place.config,
        grader=_grader(plan),
        attempts=plan.attempts,
        questions=len(items),
        planned=len(items) * plan.attempts,
        finished=len(records),
        right=verdicts["right"],
        wrong=verdicts["wrong"],
        unknown=verdicts["unknown"],
        unfinished=verdicts["unfinished"],
        score=score(items),
        pass_at={k: metrics.mean([metrics.pass_at(n, c, k) for n, c in counts]) for k in curve},
        pass_all={k: metrics.mean([metrics.pass_all(n, c, k) for n, c in counts]) for k in curve},
        undefined={k: sum(n < k for n, _ in counts) for k in curve},
        majority=_majority(items, plan.attempts),
        calibration=_calibration(items) if benchmark.calibrated else {},
        groups=_groups(items),
        terminations=dict(sorted(Counter(record.summary.termination for record in records.values()).items())),
        not_the_agent=sum(record.summary.not_the_agent for record in records.values()),
        blocked=sum(record.blocked for record in records.values()),
        canaries=sum(record.canaries for record in records.values()),
        efforts=_efforts(list(records.values()), list(grades.values()), spending),
        warnings=_warnings(plan, verdicts),
        items=items,
    )


def score(items: Sequence[ItemResult]) -> Score | None:
    """avg@k over questions that have a graded attempt; None if none has."""
    shares = [share for item in items if (share := item.share) is not None]
    sure, boot = intervals.analytic(shares), intervals.bootstrap(shares)
    if sure is None or boot is None:
        return None
    verdicts = [[attempt.verdict for attempt in item.attempts] for item in items]
    return Score(
        value=sure.value,
        low=sure.low,
        high=sure.high,
        stderr=sure.stderr,
        boot_low=boot.low,
        boot_high=boot.high,
        if_unknown_wrong=statistics.fmean(each.count("right") / len(each) for each in verdicts),
        if_unknown_right=statistics.fmean(
            (each.count("right") + each.count("unknown")) / len(each) for each in verdicts
        ),
        questions=len(shares),
    )


def _items(plan: Plan, records: Mapping[Unit, Record], grades: Mapping[Unit, Grade]) -> list[ItemResult]:
    results = []
    for item in plan.loaded.items:
        attempts = []
        for number in range(plan.attempts):
            unit = Unit(item.id, item.slug, number)
            attempts.append(_attempt(number, records.get(unit), grades.get(unit)))
        results.append(
            ItemResult(
                item=item.id,
                question=item.question,
                reference=item.answer,
                groups=dict(item.groups),
                attempts=attempts,
            )
        )
    return results


def _attempt(number: int, record: Record | None, grade: Grade | None) -> AttemptResult:
    if record is None:
        return AttemptResult(attempt=number, verdict="unfinished")
    return AttemptResult(
        attempt=number,
        verdict=str(grade.verdict) if grade else str(Verdict.UNKNOWN),
        answer=(grade.extracted if grade and grade.extracted else record.answer),
        termination=record.summary.termination,
        turns=record.summary.turns,
        seconds=record.summary.seconds,
        tokens=record.summary.usage.prompt + record.summary.usage.completion,
        explanation=(grade.explanation if grade else "not graded yet"),
        confidence=grade.confidence if grade else None,
    )


def _grader(plan: Plan) -> GraderInfo:
    grader, judge = plan.profile.grader, None
    if grader.needs_judge and plan.judge is not None:
        judge = plan.judge.model.name
    return GraderInfo(
        profile=plan.profile_name,
        name=grader.name,
        digest=grader.digest,
        judge=judge,
        profile_judge=plan.profile.judge,
        note=plan.profile.note,
        comparable=plan.profile.judge is None or judge == plan.profile.judge,
    )


def _majority(items: Sequence[ItemResult], k: int) -> float | None:
    """Answers that differ only in case and white space are one answer; an attempt without an answer votes for none."""
    values = []
    for item in items:
        votes = [
            (" ".join((attempt.answer or "").casefold().split()), attempt.verdict == "right")
            for attempt in item.attempts
            if attempt.verdict != "unknown"
        ]
        values.append(metrics.majority(votes, min(k, len(votes))))
    return metrics.mean(values)


def _calibration(items: Sequence[ItemResult]) -> dict[str, float | None]:
    stated = [
        (attempt.confidence / 100, attempt.verdict == "right")
        for item in items
        for attempt in item.attempts
        if attempt.confidence is not None and attempt.verdict in {"right", "wrong"}
    ]
    confidences, right = [pair[0] for pair in stated], [pair[1] for pair in stated]
    return {
        "rms": metrics.rms_calibration_error(confidences, right),
        "rmsAsHleLeaderboard": metrics.rms_calibration_error(confidences, right, drop_last=True),
        "ece10": metrics.expected_calibration_error(confidences, right, bins=10),
        "ece5": metrics.expected_calibration_error(confidences, right, bins=5),
    }


def _groups(items: Sequence[ItemResult]) -> dict[str, dict[str, Score | None]]:
    parts: dict[str, dict[str, list[ItemResult]]] = defaultdict(lambda: defaultdict(list))
    for item in items:
        for name, value in item.groups.items():
            parts[name][value].append(item)
    # Something that is different for nearly every question is no group.
    kept = {name: values for name, values in parts.items() if 1 < len(values) <= max(12, len(items) // 8)}
    return {
        name: {value: score(values[value]) for value in sorted(values, key=_in_order)} for name, values in kept.items()
    }


def _in_order(value: str) -> tuple[int, str]:
    """Numbers by size, then words."""
    return (int(value), "") if value.isdecimal() else (sys.maxsize, value)


def _efforts(records: Sequence[Record], grades: Sequence[Grade], spending: Spending | None) -> Efforts:
    if not records:
        return Efforts()
    each = [record.summary for record in records]
    calls = sum(one.calls for one in each)
    prompt, completion = sum(one.usage.prompt for one in each), sum(one.usage.completion for one in each)
    priced = spending is not None and (spending.prompt_price or spending.completion_price)
    return Efforts(
        turns=statistics.median(one.turns for one in each),
        turns_p90=_p90([one.turns for one in each]),
        seconds=statistics.median(one.seconds for one in each),
        seconds_p90=_p90([one.seconds for one in each]),
        prompt_tokens=prompt,
        completion_tokens=completion,
        cached_tokens=sum(one.usage.cached for one in each),
        second_model_tokens=sum(one.second_usage.prompt + one.second_usage.completion for one in each),
        judge_tokens=sum(grade.usage.prompt + grade.usage.completion for grade in grades),
        cost=spending.spent(prompt, completion) if spending is not None and priced else None,
        calls=calls,
        tool_error_rate=sum(one.tool_errors for one in each) / calls if calls else 0,
        infrastructure_rate=sum(one.infrastructure for one in each) / calls if calls else 0,
        duplicate_rate=sum(one.duplicates for one in each) / calls if calls else 0,
        folds=sum(one.folds for one in each),
        refined=sum(one.refined for one in each),
        refinement_fallbacks=sum(one.fallbacks for one in each),
    )


def _warnings(plan: Plan, verdicts: Mapping[str, int]) -> list[str]:
    warnings = list(plan.loaded.warnings)
    grader = _grader(plan)
    if not grader.comparable:
        warnings.append(
            f"the judge is {grader.judge or 'missing'}, the profile's is {grader.profile_judge}: scores may differ"
        )
    if verdicts["unfinished"]:
        warnings.append(f"{verdicts['unfinished']} attempts did not finish and count as not solved")
    if verdicts["unknown"]:
        warnings.append(f"{verdicts['unknown']} attempts have no verdict: the judge failed; grade them again (rescore)")
    if plan.config.get("modelDigest") is None:
        warnings.append("the model's digest is not known: only its name tells it from others")
    return warnings


def _p90(values: Sequence[float]) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(0.9 * len(ordered)))]
