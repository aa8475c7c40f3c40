"""What pods post to the progress server while they run. Lossy by design: the latest report wins."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from pinnace_operator.api.base import ApiModel
from pinnace_operator.api.evalresult import BenchmarkResults
from pinnace_operator.api.fields import whole
from pinnace_operator.api.merge_status import MergeReport
from pinnace_operator.api.status import CheckpointRef, Metric, Step

MAX_REPORT_BYTES = 64 * 1024
"""The progress server refuses larger bodies with 413."""


class ReportedEvent(ApiModel):
    """Something that the user should see in `kubectl describe`."""

    type: Literal["Normal", "Warning"] = "Normal"
    """Warning when something is wrong."""
    reason: Annotated[str, Field(pattern=r"^[A-Z][A-Za-z0-9]{1,63}$")]
    """One CamelCase word, such as `CheckpointSaved`."""
    message: Annotated[str, Field(min_length=1, max_length=1024)]
    """What happened, for people."""


class ProgressReport(ApiModel):
    """The body of `POST /v1/progress`."""

    kind: Annotated[str, Field(min_length=1, max_length=63)]
    """The job's kind."""
    namespace: Annotated[str, Field(min_length=1, max_length=63)]
    """The job's namespace."""
    name: Annotated[str, Field(min_length=1, max_length=63)]
    """The job's name."""
    uid: Annotated[str, Field(min_length=1, max_length=64)]
    """The job's metadata.uid: reports of an earlier job of that name are refused."""
    attempt: Annotated[int, whole(0, 2**31 - 1)]
    """The restart attempt: reports of an older one are refused."""
    step: Step
    """Optimizer steps done; of a MergeJob, bytes."""
    total_steps: Step | None = None
    """Steps (or bytes) until the end."""
    eta_seconds: Step | None = None
    """Estimated seconds until the end."""
    throughput: Annotated[str, Field(max_length=64)] | None = None
    """Speed with its unit."""
    metrics: Annotated[tuple[Metric, ...], Field(max_length=64)] = ()
    """Latest values."""
    checkpoint: CheckpointRef | None = None
    """The newest durable checkpoint."""
    merge: MergeReport | None = None
    """From a MergeJob: its plan, files and sweep."""
    benchmarks: BenchmarkResults = ()
    """Of an EvalSuite: how far each benchmark is, over all shards."""
    events: Annotated[tuple[ReportedEvent, ...], Field(max_length=16)] = ()
    """What happened since the last report."""
