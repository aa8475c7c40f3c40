"""What the operator reports: the same shape for every kind of job."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from pinnace_operator.api.base import ApiModel, ListType
from pinnace_operator.api.conditions import Condition, Reason, State, state_of
from pinnace_operator.api.fields import Digest, S3Uri, Time, whole

Count = Annotated[int, whole(0, 2**31 - 1)]
Step = Annotated[int, whole(0, 2**53)]
Name = Annotated[str, Field(max_length=253)]
Message = Annotated[str, Field(max_length=4096)]


class Metric(ApiModel):
    """A measured value."""

    name: Annotated[str, Field(min_length=1, max_length=64)]
    """What was measured, such as `loss` or `eval/loss`."""
    value: Annotated[str, Field(min_length=1, max_length=32)]
    """The value as a decimal string."""


Metrics = Annotated[tuple[Metric, ...], Field(max_length=64), ListType("map", ("name",))]


class Progress(ApiModel):
    """How far the job is, as last reported by its pods."""

    step: Step = 0
    """Optimizer steps done; of a MergeJob, bytes that are merged and durable."""
    total_steps: Step | None = None
    """Steps (or bytes) until the end."""
    percent: Annotated[int, whole(0, 100)] | None = None
    """Done, in percent of the steps (or bytes)."""
    eta_seconds: Step | None = None
    """Estimated seconds until the end."""
    throughput: Annotated[str, Field(max_length=64)] | None = None
    """Speed with its unit, such as `812 tokens/s`."""
    metrics: Metrics = ()
    """Latest values; the whole history is in S3 below the run's `history/`."""


class CheckpointRef(ApiModel):
    """The newest durable checkpoint: its manifest is written, so a restart resumes from it."""

    step: Step
    """The optimizer step after which it was taken."""
    uri: S3Uri
    """Where it is."""
    digest: Digest
    """Digest of its manifest."""
    time: Time
    """When it became durable."""


class OutputRef(ApiModel):
    """The committed result."""

    uri: S3Uri
    """Where it is; for models a Hugging Face layout."""
    digest: Digest
    """Digest of its manifest."""


class InputRef(ApiModel):
    """What the job was made from, with digest: the lineage."""

    ref: Annotated[str, Field(min_length=1, max_length=512)]
    """What the spec refers to, such as `model: SFTJob/warm-up` or `data.train: s3://…`."""
    uri: Annotated[str, Field(max_length=1024)] | None = None
    """Where it was found."""
    digest: Digest | None = None
    """Its digest, where it has one."""


class Pending(ApiModel):
    """Why the job does not run yet."""

    reason: Reason
    """In one word of a closed list."""
    message: Message = ""
    """For people, with the remedy where one is needed."""


class LastFailure(ApiModel):
    """The latest failure of a pod, also when the job recovered from it."""

    pod: Name
    """The pod's name."""
    container: Name
    """The container that failed."""
    exit_code: Annotated[int, whole(-1, 255)] | None = None
    """Its exit code; absent when the container never ran."""
    reason: Reason
    """In one word of a closed list."""
    message: Message
    """What happened and what to do."""
    log_tail: Annotated[str, Field(max_length=4096)] = ""
    """The last lines that the container wrote."""
    time: Time
    """When it happened."""


class JobStatus(ApiModel):
    """What the operator knows about the job. Users can't write it."""

    observed_generation: Annotated[int, whole(0, 2**53)] = 0
    """The metadata.generation that this status was computed from."""
    state: State = State.PENDING
    """The conditions in one word, for people and field selectors; always computed from them."""
    start_time: Time | None = None
    """When the operator first created pods; from then on most of the spec can't change."""
    completion_time: Time | None = None
    """When the job completed or failed."""
    conditions: Annotated[tuple[Condition, ...], Field(max_length=16), ListType("map", ("type",))] = ()
    """The truth about the job, one entry a type: Progressing, QuotaReserved, Suspended, Stalled, Complete, Failed."""
    progress: Progress | None = None
    checkpoint: CheckpointRef | None = None
    output: OutputRef | None = None
    inputs: Annotated[tuple[InputRef, ...], Field(max_length=64), ListType("map", ("ref",))] = ()
    """Lineage: what went in."""
    pending: Pending | None = None
    last_failure: LastFailure | None = None
    restarts: Count = 0
    """Restarts that count against spec.backoffLimit."""
    attempt: Count = 0
    """Number of the present attempt, from 0. Every start of the pods counts: restarts, resumes, a JobSet made anew."""
    active_seconds: Count = 0
    """Seconds that the job was not suspended since startTime, up to its last suspension: for activeDeadlineSeconds."""

    @model_validator(mode="after")
    def _sum_up(self) -> Self:
        object.__setattr__(self, "state", state_of(self.conditions))
        return self
