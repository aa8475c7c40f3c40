"""The life of a job: the first phase that applies says what is the case. Shared by all kinds of jobs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pinnace_operator.api.conditions import Reason
from pinnace_operator.api.status import InputRef
from pinnace_operator.builders.jobset import Budget
from pinnace_operator.reconcile import clock, pending, upstream
from pinnace_operator.reconcile.job import Job
from pinnace_operator.reconcile.jobset import JobSet
from pinnace_operator.reconcile.situation import Situation
from pinnace_operator.reconcile.status import output_of

SETTLE_SECONDS = 30
"""How long the pods' last words are waited for after the JobSet's end: the two come from different watches."""
_LOOK_AGAIN = 10
"""Seconds until what nobody announces (a stranger's JobSet, orphaned pods) is looked at again."""


def situation(job: Job) -> Situation:
    """What is the case with a job that has not ended yet."""
    for phase in PHASES:
        found = phase(job)
        if found:
            return found
    return _working(job)


def _ended(job: Job) -> Situation | None:
    jobset = job.jobset
    if jobset and jobset.completed:
        return _completed(job, jobset)
    return _failed(job, jobset) if jobset and jobset.failed else None


def _completed(job: Job, jobset: JobSet) -> Situation:
    output = output_of(job)
    if output:
        text = f"The output is at {output.uri}."
        return Situation(reason=Reason.COMPLETED, message=text, complete=True, output=output)
    left = clock.remaining(jobset.finish_time, SETTLE_SECONDS, job.now)
    if left and jobset.finish_time:
        text = "The pods have ended; waits for their result."
        return Situation(reason=Reason.RUNNING, message=text, running=True, requeue_after=left)
    return Situation(reason=Reason.OUTPUT_MISSING, message=job.explain(Reason.OUTPUT_MISSING), failed=True)


def _failed(job: Job, jobset: JobSet) -> Situation:
    cause = job.last_failure
    if jobset.exhausted and jobset.counted_restarts < job.spec.backoff_limit:
        text = "spec.backoffLimit was raised: the job goes on from the newest checkpoint with a new JobSet."
        prune = () if jobset.deleting else (jobset.prune(),)
        return Situation(reason=Reason.RESTARTING, message=text, waiting=True, restart=True, prune=prune)
    left = clock.remaining(jobset.finish_time, SETTLE_SECONDS, job.now)
    if cause is None and left and jobset.finish_time:
        text = "The pods have failed; waits for their last words."
        return Situation(reason=Reason.RESTARTING, message=text, waiting=True, requeue_after=left)
    if cause is None:
        reason = job.type.crashed
        return Situation(reason=reason, message=job.explain(reason, jobset.failure_message), failed=True)
    if jobset.exhausted and job.spec.backoff_limit:
        text = f"Failed {job.restarts + 1} times, last with {cause.reason} in pod {cause.pod}: {cause.message}"
        return Situation(reason=Reason.BACKOFF_LIMIT_EXCEEDED, message=text, failed=True)
    return Situation(reason=cause.reason, message=cause.message, failed=True)


def _suspended(job: Job) -> Situation | None:
    if not job.spec.suspend:
        return None
    jobset = job.jobset
    if jobset or job.alive:
        prune = (jobset.prune(),) if jobset and not jobset.deleting else ()
        text = "spec.suspend is true: the pods write a checkpoint and end."
        again = None if jobset else _LOOK_AGAIN
        return Situation(
            reason=Reason.SUSPENDING, message=text, suspended=True, waiting=True, prune=prune, requeue_after=again
        )
    newest = job.before.checkpoint
    start = f"from the checkpoint of step {newest.step}" if newest else "from the start"
    text = f"spec.suspend is true. Set it to false to go on {start}."
    return Situation(reason=Reason.SUSPENDED, message=text, suspended=True, waiting=True)


def _between(job: Job) -> Situation | None:
    """The kind's own phases, where it has a life between two JobSets."""
    return job.type.between(job)


def overdue(job: Job) -> Situation | None:
    """activeDeadlineSeconds are over."""
    limit = job.spec.active_deadline_seconds
    if limit is None or job.before.start_time is None or job.active_seconds < limit:
        return None
    fact = f"The job ran for {job.active_seconds} s, its activeDeadlineSeconds are {limit}"
    prune = (job.jobset.prune(),) if job.jobset and not job.jobset.deleting else ()
    return Situation(
        reason=Reason.DEADLINE_EXCEEDED, message=job.explain(Reason.DEADLINE_EXCEEDED, fact), failed=True, prune=prune
    )


def deadline(job: Job) -> int | None:
    """Seconds until the job is overdue, where it can be."""
    limit = job.spec.active_deadline_seconds
    return limit - job.active_seconds if limit and job.before.start_time else None


def _taken(job: Job) -> Situation | None:
    """The name that the JobSet needs is in use."""
    other = job.stranger
    if other is None:
        return None
    name = job.identity.name
    if other.of_a_predecessor(job.identity):
        text = f"Waits until the JobSet of an earlier {job.identity.kind} named {name} is gone."
        return Situation(reason=Reason.PENDING, message=text, waiting=True, requeue_after=_LOOK_AGAIN)
    fact = f"A JobSet named {name} exists already and belongs to {other.owner}"
    return Situation(
        reason=Reason.CHILD_CONFLICT, message=job.explain(Reason.CHILD_CONFLICT, fact), stalled=True, waiting=True,
        requeue_after=_LOOK_AGAIN,
    )  # fmt: skip


def _leaving(job: Job) -> Situation | None:
    """Never two gangs: a new JobSet has to wait for the old one's pods."""
    jobset = job.jobset
    if jobset and not jobset.deleting:
        return None
    if jobset is None and not job.alive:
        return None
    names = ", ".join(pod.name for pod in job.alive[:3]) or "none seen"
    text = f"Waits until the pods of the JobSet that was deleted have ended (still there: {names})."
    again = None if jobset else _LOOK_AGAIN
    return Situation(reason=Reason.RESTARTING, message=text, waiting=True, requeue_after=again)


def _absent(job: Job) -> Situation | None:
    """There is no JobSet: make one, if everything that it needs is there."""
    if job.jobset:
        return None
    found = _models(job)
    if isinstance(found, upstream.Missing):
        return Situation(reason=found.reason, message=found.message, waiting=not found.final, failed=found.final)
    models, inputs = found
    if job.observed.apply_error:
        wait = pending.refused(job.observed.apply_error)
        return Situation(reason=wait.reason, message=wait.message, stalled=wait.stalled, waiting=True)
    budget = Budget(
        max_restarts=max(0, job.spec.backoff_limit - job.restarts),
        first_attempt=job.next_attempt,
        restarts_before=job.restarts,
    )
    settings = job.observed.settings
    child = job.type.build(job.identity, job.spec, settings, models, budget)
    return Situation(
        reason=Reason.STARTING, message="The pods are being created.", waiting=True, starts=True, inputs=inputs,
        children=(*job.type.beside(job.identity, job.spec, settings), child),
        requeue_after=job.spec.active_deadline_seconds,
    )  # fmt: skip


def _held(job: Job) -> Situation | None:
    """Kueue (or somebody's hand) keeps the JobSet suspended."""
    jobset = job.jobset
    if jobset is None or not jobset.suspended:
        return None
    queue = job.spec.queue_name
    if queue is None:
        text = (
            "Somebody set suspend on the JobSet, which belongs to the operator. "
            f'Remedy: set it to false (kubectl patch jobset {job.identity.name} --type=merge -p \'{{"spec":'
            '{"suspend":false}}\'), and use spec.suspend of this resource instead.'
        )
        return Situation(reason=Reason.SUSPENDED, message=text, suspended=True, stalled=True, waiting=True)
    evicted = pending.evicted(job.observed.workload)
    if evicted:
        text = f"Queue {queue} took the quota back ({evicted}); the job goes on from its newest checkpoint later."
        return Situation(reason=Reason.PREEMPTED, message=text, suspended=True, waiting=True)
    text = pending.queued(job.observed.workload, queue)
    return Situation(reason=Reason.QUOTA_PENDING, message=text, suspended=True, waiting=True)


def _working(job: Job) -> Situation:
    children = _repaired(job)
    left = deadline(job)
    at_work = [pod for pod in job.gang if pod.at_work(job.type.role)]
    missing = [name for name in job.type.others if not any(pod.at_work(name) for pod in job.gang)]
    if len(at_work) < job.type.nodes(job.spec) or missing:
        found = _starting(job)
        again = min((each for each in (found.requeue_after, left) if each), default=None)
    else:
        found, again = _running(job, left)
    return Situation(
        reason=found.reason, message=found.message, running=found.running, stalled=found.stalled,
        waiting=found.waiting, starts=True, children=children, requeue_after=again,
    )  # fmt: skip


def _starting(job: Job) -> Situation:
    broken = [pod for pod in job.gang if pod.status.get("phase") == "Failed"]
    cause = job.last_failure
    again = job.jobset is not None and job.jobset.restarts > 0
    if broken:
        why = f" ({cause.reason} in pod {cause.pod})" if cause else ""
        after = "each starts again" if job.type.peers else "all start again from the newest checkpoint"
        text = f"{len(broken)} of {len(job.gang)} pods ended early{why}; {after}."
        return Situation(reason=Reason.RESTARTING, message=text, waiting=True)
    wait = pending.explain_wait(
        [pod for pod in job.gang if not pod.ended], job.observed.warnings, job.now, job.type.remedies
    )
    if wait.reason is Reason.STARTING and again:
        text = f"Attempt {job.attempt + 1} starts from the newest checkpoint. {wait.message}"
        return Situation(reason=Reason.RESTARTING, message=text, waiting=True)
    message = (wait.reason is Reason.STARTING and job.type.starting(job)) or wait.message
    return Situation(
        reason=wait.reason, message=message, stalled=wait.stalled, waiting=True, requeue_after=wait.requeue_after
    )


def _running(job: Job, left: int | None) -> tuple[Situation, int | None]:
    report, patience = job.observed.progress, job.observed.settings.no_progress_seconds
    heard = job.observed.progress_time if report and report.attempt == job.attempt else None
    silence = clock.remaining(heard, patience, job.now) if patience and heard else None
    again = min((each for each in (silence, left) if each), default=None)
    if silence == 0:
        fact = f"No step was reported for {clock.seconds_since(heard, job.now)} s"
        text = job.explain(Reason.NO_PROGRESS, fact)
        return Situation(reason=Reason.NO_PROGRESS, message=text, running=True, stalled=True), again
    run = sum(1 for pod in job.gang if not pod.ended or pod.at_work(job.type.role))
    return Situation(reason=Reason.RUNNING, message=f"{run} of {len(job.gang)} pods run.", running=True), again


def _repaired(job: Job) -> tuple[dict[str, Any], ...]:
    """The JobSet with our labels, if someone took them away: without them no event about it reaches us.

    Its spec can't change while it lives, so it is applied as it is, whatever this version of the operator would build
    now; `suspend` is left to Kueue.
    """
    jobset = job.jobset
    wanted = job.identity.labels(job.type.role)
    if jobset is None or all(jobset.labels.get(key) == value for key, value in wanted.items()):
        return ()
    return (jobset.relabelled(job.identity, wanted),)


def _models(job: Job) -> tuple[dict[str, dict[str, Any]], tuple[InputRef, ...]] | upstream.Missing:
    """The resolved models for the pods, and the lineage; both are pinned from the first start on.

    Of several that are missing, one that never comes is told before one that is waited for.
    """
    models: dict[str, dict[str, Any]] = {}
    inputs: list[InputRef] = []
    missing: list[upstream.Missing] = []
    for field, source in job.type.sources(job.spec).items():
        said = upstream.lineage(field, source)
        pinned = upstream.pinned(job.before.inputs, said.ref) if job.before.start_time else None
        if source.from_ is None:
            models[field] = {"uri": source.uri}
        elif pinned and pinned.uri:
            models[field], said = upstream.for_pods(source.from_, pinned.uri, pinned.digest), pinned
        else:
            found = upstream.resolve(source.from_, job.observed.upstreams.get(source.from_.key))
            if isinstance(found, upstream.Missing):
                missing.append(found)
                continue
            models[field] = upstream.for_pods(source.from_, found.uri, found.digest)
            said = said.model_copy(update={"uri": found.uri, "digest": found.digest})
        inputs.append(said)
    for need in job.type.needs(job):
        if isinstance(need, upstream.Missing):
            missing.append(need)
        else:
            models[need.field] = dict(need.resolved)
            inputs.append(need.ref)
    if missing:
        return min(missing, key=lambda each: not each.final)
    return models, (*inputs, *job.type.data(job.spec))


PHASES: tuple[Callable[[Job], Situation | None], ...] = (
    _between,
    _ended,
    _suspended,
    overdue,
    _taken,
    _leaving,
    _absent,
    _held,
)
