"""What the operator reports about an RLRun, beside what it reports about every job."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from pinnace_operator.api.base import ApiModel
from pinnace_operator.api.fields import whole
from pinnace_operator.api.status import Count, JobStatus, Step

Decimal = Annotated[str, Field(min_length=1, max_length=32)]


class RolloutStatus(ApiModel):
    """The servers of the policy."""

    ready: Count = 0
    """Pods that serve."""
    wanted: Count = 0
    """Pods that there should be."""
    quarantined: Annotated[int, whole(0, 4096)] | None = None
    """Servers that are not asked at present: they don't answer, or don't have the trainer's weights."""


class RLRunStatus(JobStatus):
    """What the operator knows about the run. Users can't write it."""

    policy_version: Step | None = None
    """The version of the weights that were published last."""
    reward: Decimal | None = None
    """Mean reward of the last step's attempts."""
    staleness: Decimal | None = None
    """Mean age of the last step's tokens, in policy versions."""
    rollout: RolloutStatus | None = None
