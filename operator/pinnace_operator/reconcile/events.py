"""What `kubectl describe` tells a person: changes of the situation, failures, and what pods reported."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from pinnace_operator.api.conditions import REASONS, Condition, ConditionType, Reason, find
from pinnace_operator.api.progress import ProgressReport
from pinnace_operator.api.status import JobStatus
from pinnace_operator.reconcile.plan import EventRecord

_LONGEST = 1024


def between(before: JobStatus, after: JobStatus, report: ProgressReport | None) -> tuple[EventRecord, ...]:
    """Events of the step from one status to the next, and those of the latest report (which a plan may repeat)."""
    return (*_changes(before, after), *_failures(before, after), *_reported(report))


def _changes(before: JobStatus, after: JobStatus) -> Iterator[EventRecord]:
    then, now = _progressing(before), _progressing(after)
    if now is None or (then is not None and then.reason is now.reason):
        return
    warning = REASONS[now.reason].remedy is not None
    key = f"reason/{now.reason}/{after.attempt}/{digest(now.message)}"
    yield record(now.reason, now.message or REASONS[now.reason].meaning, key, warning=warning)


def _failures(before: JobStatus, after: JobStatus) -> Iterator[EventRecord]:
    failure = after.last_failure
    if failure and failure != before.last_failure:
        where = f"Pod {failure.pod}" + (f", container {failure.container}" if failure.container else "")
        key = f"failure/{failure.pod}/{failure.container}/{failure.reason}"
        yield record(failure.reason, f"{where}: {failure.message}", key, warning=True)


def _reported(report: ProgressReport | None) -> Iterator[EventRecord]:
    for each in report.events if report else ():
        key = f"reported/{report.attempt if report else 0}/{each.reason}/{digest(each.message)}"
        yield EventRecord(type=each.type, reason=each.reason, message=each.message[:_LONGEST], key=key)


def _progressing(status: JobStatus) -> Condition | None:
    return find(status.conditions, ConditionType.PROGRESSING)


def record(reason: Reason, message: str, key: str, *, warning: bool) -> EventRecord:
    """An Event of a reason of the closed list."""
    kind = "Warning" if warning else "Normal"
    return EventRecord(type=kind, reason=str(reason), message=message[:_LONGEST], key=key)  # type: ignore[arg-type]  # one of the two


def digest(text: str) -> str:
    """A short name for a text, for keys."""
    return hashlib.sha256(text.encode()).hexdigest()[:12]
