"""What the specs of all kinds of jobs have in common."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from pinnace_operator.api.base import ApiModel
from pinnace_operator.api.fields import Label, whole
from pinnace_operator.api.shared import DeletionPolicy, StorageRef


class JobSpec(ApiModel):
    """Where a job writes, who admits it, and how it ends."""

    storage: StorageRef = Field(default_factory=StorageRef)
    queue_name: Label | None = None
    """Kueue LocalQueue that must admit the job; absent: it starts at once."""
    suspend: bool = False
    """True: the pods write a checkpoint and go away. False again: the job goes on from the newest checkpoint."""
    active_deadline_seconds: Annotated[int, whole(1, 315_360_000)] | None = None
    """The job fails when its pods have run for longer than this in all, suspensions not counted."""
    ttl_seconds_after_finished: Annotated[int, whole(0, 315_360_000)] | None = None
    """Delete the pods (never this resource, nor its S3 data) so many seconds after the end; absent: never."""
    backoff_limit: Annotated[int, whole(0, 100)] = 3
    """Restarts after failures before the job fails. Restarts after a checkpoint on request don't count."""
    deletion_policy: DeletionPolicy = DeletionPolicy.RETAIN
    """When this resource is deleted, Retain or Delete its data in S3."""
