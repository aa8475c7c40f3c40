"""A job that has ended, or is being deleted: what is left to do."""

from __future__ import annotations

from dataclasses import replace

from pinnace_operator.api.conditions import Condition, ConditionType, Reason, explain, is_true
from pinnace_operator.api.shared import DeletionPolicy
from pinnace_operator.api.status import JobStatus
from pinnace_operator.builders import cleanup
from pinnace_operator.builders.identity import Identity
from pinnace_operator.reconcile import clock, status
from pinnace_operator.reconcile.job import Job
from pinnace_operator.reconcile.jobset import JobSet
from pinnace_operator.reconcile.plan import FINALIZER, Plan
from pinnace_operator.reconcile.pod_environment import images, variables
from pinnace_operator.reconcile.situation import Situation

_TRY_AGAIN = 300
"""Seconds until S3 data that could not be deleted is tried again."""
_LOOK_AGAIN = 10


def is_final(before: JobStatus) -> bool:
    """Complete and Failed stay for ever."""
    return any(is_true(before.conditions, each) for each in (ConditionType.COMPLETE, ConditionType.FAILED))


def ended(job: Job) -> Plan:
    """The pods of a job that has ended go: at once if some may still run, else when their time is over. It stays."""
    jobset = job.jobset
    settled = keep(job.before, job.identity)
    if jobset is None or jobset.deleting:
        return Plan(status=settled.to_manifest())
    if not (jobset.completed or jobset.failed):
        return Plan(status=settled.to_manifest(), prune=(jobset.prune(),))
    limit = job.spec.ttl_seconds_after_finished
    if limit is None:
        return Plan(status=settled.to_manifest())
    left = clock.remaining(job.before.completion_time, limit, job.now)
    if left and job.before.completion_time:
        return Plan(status=settled.to_manifest(), requeue_after=left)
    return Plan(status=settled.to_manifest(), prune=(jobset.prune(),))


def keep(before: JobStatus, identity: Identity) -> JobStatus:
    """The status of a job that has ended, for the generation that was looked at (a later time to live, for example)."""
    conditions = tuple(_seen(each, identity.generation) for each in before.conditions)
    return before.model_copy(update={"conditions": conditions, "observed_generation": identity.generation})


def _seen(condition: Condition, generation: int) -> Condition:
    return condition.model_copy(update={"observed_generation": generation})


def deleted(job: Job, finalizers: tuple[str, ...]) -> Plan:
    """The resource is being deleted. With deletionPolicy Delete its S3 data goes first, else nothing is done:
    the garbage collector takes the children."""
    unused = job.before.start_time is None or job.spec.deletion_policy is DeletionPolicy.RETAIN
    if FINALIZER not in finalizers or unused:
        return Plan(status=job.before.to_manifest())
    found = _purging(job)
    if found is None:
        return Plan(status=job.before.to_manifest())
    after = job.before if is_final(job.before) else status.write(job, found)
    return Plan(
        status=after.to_manifest(), children=found.children, prune=found.prune, requeue_after=found.requeue_after,
        finalizer=True,
    )  # fmt: skip


def _purging(job: Job) -> Situation | None:
    """None when the data is gone."""
    jobset = job.jobset
    deleting = Situation(reason=Reason.DELETING_ARTIFACTS, message=explain(Reason.DELETING_ARTIFACTS), waiting=True)
    if job.stranger or (jobset and jobset.deleting):
        return replace(deleting, requeue_after=_LOOK_AGAIN)
    if jobset and jobset.role != cleanup.ROLE:
        return replace(deleting, prune=(jobset.prune(),))
    if jobset:
        return _cleanup(job, jobset, deleting)
    if job.alive:
        return replace(deleting, requeue_after=_LOOK_AGAIN)
    settings, overlay = job.observed.settings, job.type.overlay(job.spec)
    child = cleanup.cleanup(
        job.identity, image=job.type.image(job.spec, images(settings)), overlay=overlay,
        env=variables(job.identity, job.spec, settings, {}), pull_policy=settings.image_pull_policy,
    )  # fmt: skip
    return replace(deleting, children=(child,))


def _cleanup(job: Job, jobset: JobSet, deleting: Situation) -> Situation | None:
    """How far the pod that deletes the data is; None when it has done it."""
    if jobset.completed:
        return None
    if jobset.failed:
        left = clock.remaining(jobset.finish_time, _TRY_AGAIN, job.now)
        said = job.last_failure.message if job.last_failure else ""
        return replace(
            deleting, reason=Reason.ARTIFACT_DELETION_FAILED, stalled=True, requeue_after=left or None,
            message=explain(Reason.ARTIFACT_DELETION_FAILED, said), prune=() if left else (jobset.prune(),),
        )  # fmt: skip
    return deleting
