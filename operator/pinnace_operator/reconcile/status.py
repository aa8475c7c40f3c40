"""Reading the status that was, and writing the status that is to be."""

from __future__ import annotations

from collections.abc import Iterable

from pinnace_operator.api.conditions import Condition, ConditionType, Reason
from pinnace_operator.api.outcome import Outcome
from pinnace_operator.api.progress import ProgressReport
from pinnace_operator.api.status import CheckpointRef, JobStatus, OutputRef, Pending, Progress
from pinnace_operator.reconcile import pods
from pinnace_operator.reconcile.conditions import Conditions
from pinnace_operator.reconcile.job import Job
from pinnace_operator.reconcile.plan import Raw
from pinnace_operator.reconcile.recall import recall
from pinnace_operator.reconcile.situation import Situation

_LONGEST = 4096


def read(raw: Raw | None, model: type[JobStatus] = JobStatus) -> JobStatus:
    """The present status of a job of the kind with that model."""
    return recall(model, raw)


def write(job: Job, now: Situation) -> JobStatus:
    """The whole status of a job in that situation."""
    before = job.before
    ended = pods.outcomes(job.pods)
    output = now.output or before.output
    suspended_now = _suspends(before, now)
    return job.type.status(
        observed_generation=job.identity.generation,
        start_time=before.start_time or (job.now if now.starts else None),
        completion_time=before.completion_time or (job.now if now.final else None),
        conditions=_conditions(job, now),
        progress=_progress(before.progress, job.observed.progress, running=now.running, complete=now.complete),
        checkpoint=_newest(before.checkpoint, job.observed.progress, (outcome for _, outcome in ended)),
        output=output,
        inputs=now.inputs if now.inputs is not None else before.inputs,
        pending=Pending(reason=now.reason, message=now.message[:_LONGEST]) if now.waiting else None,
        last_failure=job.last_failure,
        restarts=job.restarts + 1 if now.restart and job.restarts == _counted(job) else job.restarts,
        attempt=job.next_attempt if now.starts and not job.jobset else job.attempt,
        active_seconds=job.active_seconds if suspended_now or now.final else before.active_seconds,
        **job.type.results(job),
    )


def _counted(job: Job) -> int:
    return job.jobset.counted_restarts if job.jobset else job.before.restarts


def _suspends(before: JobStatus, now: Situation) -> bool:
    was = any(each.type is ConditionType.SUSPENDED and each.status == "True" for each in before.conditions)
    return now.suspended and not was


def _conditions(job: Job, now: Situation) -> tuple[Condition, ...]:
    conditions = Conditions(job.before.conditions, now=job.now, generation=job.identity.generation)
    conditions.set(ConditionType.PROGRESSING, now.running, now.reason, now.message)
    if now.suspended:
        conditions.set(ConditionType.SUSPENDED, True, now.reason, now.message)
    else:
        was = conditions.find(ConditionType.SUSPENDED)
        resumed = was is not None and (was.status == "True" or was.reason is Reason.RESUMED)
        text = "The job went on after a suspension." if resumed else "spec.suspend is false."
        conditions.set(ConditionType.SUSPENDED, False, Reason.RESUMED if resumed else Reason.RUNNING, text)
    if not now.final:
        _quota(job, conditions)
    if now.stalled:
        conditions.set(ConditionType.STALLED, True, now.reason, now.message)
    else:
        conditions.clear(ConditionType.STALLED, now.reason, "Nobody has to act.")
    if now.complete:
        conditions.set(ConditionType.COMPLETE, True, now.reason, now.message)
    if now.failed:
        conditions.set(ConditionType.FAILED, True, now.reason, now.message)
    return conditions.all()


def _quota(job: Job, conditions: Conditions) -> None:
    queue = job.spec.queue_name
    if queue is None:
        conditions.set(ConditionType.QUOTA_RESERVED, True, Reason.QUEUE_NOT_USED, "The job names no queue.")
    elif job.jobset and not job.jobset.suspended and not job.jobset.deleting:
        text = f"Queue {queue} admitted the job." if job.observed.workload else "No queue holds the job back."
        conditions.set(ConditionType.QUOTA_RESERVED, True, Reason.QUOTA_RESERVED, text)
    else:
        conditions.set(ConditionType.QUOTA_RESERVED, False, Reason.QUOTA_PENDING, f"Queue {queue} has yet to admit it.")


def _progress(
    before: Progress | None, report: ProgressReport | None, *, running: bool, complete: bool
) -> Progress | None:
    if report is None and before is None:
        return None
    if report is not None:
        metrics = {each.name: each for each in report.metrics}
        total = report.total_steps
        now = Progress(
            step=report.step,
            total_steps=total,
            percent=min(100, report.step * 100 // total) if total else None,
            eta_seconds=report.eta_seconds,
            throughput=report.throughput,
            metrics=tuple(metrics.values()),
        )
    else:
        now = before or Progress()
    if complete:
        return now.model_copy(update={"step": now.total_steps or now.step, "percent": 100, "eta_seconds": 0})
    # An estimate of a job that stands still is wrong by the next minute.
    return now if running else now.model_copy(update={"eta_seconds": None})


def _newest(
    before: CheckpointRef | None, report: ProgressReport | None, ended: Iterable[Outcome]
) -> CheckpointRef | None:
    """The checkpoint of the highest step that anyone told of."""
    told = [before, report.checkpoint if report else None, *(outcome.checkpoint for outcome in ended)]
    known = [each for each in told if each is not None]
    return max(known, key=lambda each: (each.step, each.time)) if known else None


def output_of(job: Job) -> OutputRef | None:
    """What rank 0 (of peers: any of them) said that it has committed."""
    ended = pods.outcomes(job.pods)
    said = [outcome.output for end, outcome in ended if (job.type.peers or end.pod.rank == 0) and outcome.output]
    return said[-1] if said else job.before.output
