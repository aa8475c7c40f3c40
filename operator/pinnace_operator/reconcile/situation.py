"""What is the case with a job, in one value: a phase function finds it, the status and the plan are written from it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from pinnace_operator.api.conditions import Reason
from pinnace_operator.api.status import InputRef, OutputRef
from pinnace_operator.reconcile.plan import Prune


@dataclass(frozen=True, kw_only=True)
class Situation:
    """`reason` and `message` say what happens now; the flags say which conditions hold."""

    reason: Reason
    message: str
    running: bool = False
    """Pods do what the job is for: Progressing."""
    suspended: bool = False
    stalled: bool = False
    """A person must act."""
    complete: bool = False
    failed: bool = False
    waiting: bool = False
    """The job does not run yet or not now: `status.pending` tells why."""
    starts: bool = False
    """Pods are being created: startTime is set."""
    restart: bool = False
    """A restart that counts, and that the JobSet's own numbers don't show."""
    output: OutputRef | None = None
    inputs: tuple[InputRef, ...] | None = None
    """What the job is made from, once that is decided; None leaves the status as it is."""
    children: tuple[dict[str, Any], ...] = ()
    prune: tuple[Prune, ...] = ()
    requeue_after: int | None = None
    details: dict[str, str] = field(default_factory=dict)

    @property
    def final(self) -> bool:
        return self.complete or self.failed
