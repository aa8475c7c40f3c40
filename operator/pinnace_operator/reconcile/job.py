"""One job with all that is known about it: what every phase of its life looks at."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any

from pinnace_operator.api.conditions import ConditionType, Reason, explain, find
from pinnace_operator.api.job import JobSpec
from pinnace_operator.api.pod import PodTemplate
from pinnace_operator.api.shared import ModelSource
from pinnace_operator.api.status import InputRef, JobStatus, LastFailure
from pinnace_operator.builders.identity import Identity
from pinnace_operator.builders.images import Images
from pinnace_operator.builders.jobset import Budget
from pinnace_operator.reconcile import clock, failure
from pinnace_operator.reconcile.jobset import JobSet
from pinnace_operator.reconcile.plan import Observed, OperatorSettings, Raw, SecretRequest
from pinnace_operator.reconcile.pods import Pod, read
from pinnace_operator.reconcile.situation import Situation
from pinnace_operator.reconcile.upstream import Missing, Need

Models = Mapping[str, Mapping[str, Any]]
"""By field of the spec: where a model was found (`resolved` of docs/contracts.md §2)."""


@dataclass(frozen=True, kw_only=True)
class JobType:
    """What a kind of job adds to the life that all jobs share."""

    role: str
    """The container whose running means that the job runs; the JobSet's replicated job has its name."""
    crashed: Reason
    """The reason when it ends without a word."""
    parse: Callable[[Raw], Any]
    """The spec of a raw resource. Raises pydantic.ValidationError."""
    nodes: Callable[[Any], int]
    """Pods of the gang."""
    pod_resources: Callable[[Any], Raw]
    """`resources` of the role's container, for messages."""
    sources: Callable[[Any], Mapping[str, ModelSource]]
    """The models that it starts from, by field; the pods find them resolved under the same names."""
    data: Callable[[Any], tuple[InputRef, ...]]
    """The rest of the lineage, as far as the spec alone tells it."""
    build: Callable[[Identity, Any, OperatorSettings, Models, Budget], dict[str, Any]]
    """The JobSet's manifest, from identity, spec, settings, the resolved models and the budget."""
    image: Callable[[Any, Images], str]
    """The image that its pods run, also the one that deletes the run's S3 data."""
    overlay: Callable[[Any], PodTemplate]
    """Where its pods run, likewise."""
    status: type[JobStatus] = JobStatus
    """What its resources report."""
    results: Callable[[Job], Mapping[str, Any]] = lambda _: {}
    """The fields of the status that other kinds don't have."""
    between: Callable[[Job], Situation | None] = lambda _: None
    """What is the case between two JobSets of one job, for kinds that have more than one."""
    needs: Callable[[Job], tuple[Need | Missing, ...]] = lambda _: ()
    """What it needs before it can start besides models."""
    beside: Callable[[Identity, Any, OperatorSettings], tuple[dict[str, Any], ...]] = lambda *_: ()
    """Objects that must be there before the JobSet."""
    secrets: Callable[[Identity], tuple[SecretRequest, ...]] = lambda _: ()
    """Keys of its own that its pods share."""
    others: tuple[str, ...] = ()
    """Containers of other roles, of each of which one must run for the job to run."""
    starting: Callable[[Job], str] = lambda _: ""
    """What a start that takes its time is at, for people; empty: the usual words."""
    crashes: Mapping[str, Reason] = field(default_factory=dict)
    """By container, for those of other roles: the reason when it ends without a word."""
    remedies: Mapping[Reason, str] = field(default_factory=dict)
    """What to do about failures, where it is not what the reason's own remedy says."""
    peers: bool = False
    """Its pods can stand in for each other: they are repeated one by one, and any of them may tell the output."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """A resource with its facts, read once."""

    type: JobType
    identity: Identity
    spec: JobSpec
    before: JobStatus
    observed: Observed

    @property
    def now(self) -> datetime:
        return self.observed.now

    def explain(self, reason: Reason, fact: str = "") -> str:
        """The fact, or what the reason means, and the remedy that this kind has."""
        return explain(reason, fact, remedy=self.type.remedies.get(reason))

    @cached_property
    def jobset(self) -> JobSet | None:
        """Ours; a JobSet of the same name that belongs to someone else is `stranger`."""
        found = JobSet(self.observed.jobset) if self.observed.jobset else None
        return found if found and found.owned_by(self.identity) else None

    @cached_property
    def stranger(self) -> JobSet | None:
        found = JobSet(self.observed.jobset) if self.observed.jobset else None
        return found if found and not found.owned_by(self.identity) else None

    @cached_property
    def pods(self) -> tuple[Pod, ...]:
        return read(self.observed.pods)

    @cached_property
    def gang(self) -> tuple[Pod, ...]:
        """Pods of the present attempt."""
        jobset = self.jobset
        return tuple(pod for pod in self.pods if pod.of(jobset)) if jobset else ()

    @cached_property
    def alive(self) -> tuple[Pod, ...]:
        """Pods, of any attempt, whose containers may still run."""
        return tuple(pod for pod in self.pods if not pod.ended)

    @cached_property
    def last_failure(self) -> LastFailure | None:
        """The latest one, also when its pod is gone."""
        role = {"resources": self.type.pod_resources(self.spec)}
        crashed = lambda name: self.type.crashes.get(name, self.type.crashed)  # noqa: E731
        seen = failure.latest(self.pods, role, crashed, self.type.remedies, peers=self.type.peers)
        known = self.before.last_failure
        return seen if seen and (known is None or seen.time >= known.time) else known

    @cached_property
    def attempt(self) -> int:
        return max(self.before.attempt, self.jobset.attempt) if self.jobset else self.before.attempt

    @cached_property
    def restarts(self) -> int:
        """That count against backoffLimit."""
        return max(self.before.restarts, self.jobset.counted_restarts) if self.jobset else self.before.restarts

    @cached_property
    def active_seconds(self) -> int:
        """Since startTime, without the time in which the job was suspended by its user or its queue."""
        suspended = find(self.before.conditions, ConditionType.SUSPENDED)
        if self.before.start_time is None or (suspended and suspended.status == "True"):
            return self.before.active_seconds
        since = max(self.before.start_time, suspended.last_transition_time) if suspended else self.before.start_time
        return self.before.active_seconds + clock.seconds_since(since, self.now)

    @property
    def next_attempt(self) -> int:
        """Number of the first attempt of a JobSet that is made now."""
        return self.before.attempt + 1 if self.before.start_time else 0
