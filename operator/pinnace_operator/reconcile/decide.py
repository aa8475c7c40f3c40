"""From a resource and the facts about it to a plan: the frame that all kinds of jobs share."""

from __future__ import annotations

from dataclasses import replace

from pydantic import ValidationError

from pinnace_operator.api.conditions import ConditionType, Reason, explain
from pinnace_operator.api.shared import DeletionPolicy
from pinnace_operator.api.status import JobStatus
from pinnace_operator.builders.identity import Identity
from pinnace_operator.reconcile import afterlife, events, invalid, life, status
from pinnace_operator.reconcile.conditions import Conditions
from pinnace_operator.reconcile.job import Job, JobType
from pinnace_operator.reconcile.jobset import JobSet
from pinnace_operator.reconcile.plan import Observed, Plan, Raw


def decide(type_: JobType, resource: Raw, observed: Observed) -> Plan:
    """What to do. Depends on nothing but its arguments, and never on what happened in which order."""
    meta = resource["metadata"]
    identity = Identity.of(resource)
    before = status.read(resource.get("status"), type_.status)
    try:
        spec = type_.parse(resource)
    except ValidationError as error:
        return _invalid(identity, before, error, observed, deleting=bool(meta.get("deletionTimestamp")))
    job = Job(type=type_, identity=identity, spec=spec, before=before, observed=observed)
    if meta.get("deletionTimestamp"):
        return afterlife.deleted(job, tuple(meta.get("finalizers") or ()))
    finalizer = spec.deletion_policy is DeletionPolicy.DELETE
    if afterlife.is_final(before):
        return replace(afterlife.ended(job), finalizer=finalizer)
    found = life.situation(job)
    after = status.write(job, found)
    return Plan(
        status=after.to_manifest(),
        children=found.children,
        prune=found.prune,
        secrets=type_.secrets(identity) if found.children else (),
        events=events.between(before, after, observed.progress),
        requeue_after=found.requeue_after,
        finalizer=finalizer,
    )


def _invalid(
    identity: Identity, before: JobStatus, error: ValidationError, observed: Observed, *, deleting: bool
) -> Plan:
    """A spec that the API server let through (an older CRD, a rule that CEL can't say) and that can't work."""
    if deleting or afterlife.is_final(before):
        return Plan(status=before.to_manifest())
    message = explain(Reason.INVALID_SPEC, invalid.problems(error))
    conditions = Conditions(before.conditions, now=observed.now, generation=identity.generation)
    conditions.set(ConditionType.PROGRESSING, False, Reason.INVALID_SPEC, message)
    conditions.set(ConditionType.FAILED, True, Reason.INVALID_SPEC, message)
    after = before.model_copy(
        update={
            "conditions": conditions.all(),
            "observed_generation": identity.generation,
            "completion_time": observed.now,
            "pending": None,
        }
    )
    ours = JobSet(observed.jobset) if observed.jobset else None
    prune = (ours.prune(),) if ours and ours.owned_by(identity) and not ours.deleting else ()
    after = type(after).model_validate(after.model_dump())
    return Plan(status=after.to_manifest(), prune=prune, events=events.between(before, after, None))
