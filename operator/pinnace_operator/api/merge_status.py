"""What a MergeJob reports besides what all jobs do: its plan, its files, and the table of its sweep."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field

from pinnace_operator.api.base import ApiModel, ListType
from pinnace_operator.api.evalresult import MOST_BENCHMARKS, Percent
from pinnace_operator.api.fields import Digest, S3Uri, whole
from pinnace_operator.api.status import Count, JobStatus

MOST_CANDIDATES = 32
MOST_FILES = 256

Bytes = Annotated[int, whole(0, 2**53)]
Loss = Annotated[str, Field(min_length=1, max_length=24)]
FileName = Annotated[str, Field(min_length=1, max_length=253)]


class MergePlan(ApiModel):
    """What one merge reads and writes."""

    tensors: Count
    """Tensors of the output."""
    input_bytes: Bytes
    """Bytes of weights to read."""
    output_bytes: Bytes
    """Bytes of weights to write."""
    files: Count
    """Files with weights to write."""


class MergedFile(ApiModel):
    """One file of the output that is complete."""

    name: FileName
    """Its name in the output's folder."""
    bytes: Bytes
    """Its size."""
    digest: Digest
    """SHA-256 of its content."""


class BenchmarkScore(ApiModel):
    """What a candidate came to on one benchmark."""

    name: Annotated[str, Field(min_length=1, max_length=63)]
    """As in evalSuiteTemplate.benchmarks."""
    score: Percent
    """avg@k in percent."""


class SweepRow(ApiModel):
    """One candidate with its losses (lower is better), or the scores of its EvalSuite (higher is better)."""

    candidate: FileName
    """Its name, also that of its folder in `candidates/`."""
    values: Annotated[tuple[Annotated[str, Field(max_length=24)], ...], Field(max_length=4), ListType()]
    """What was tried, in the order of sweep.axes."""
    special: Loss | None = None
    """Loss on the special data, a decimal."""
    general: Loss | None = None
    """Loss on the general data."""
    total: Loss | None = None
    """The weighted sum, by which candidates are compared."""
    score: Percent | None = None
    """Mean of the benchmarks in percent, by which candidates are compared."""
    benchmarks: Annotated[
        tuple[BenchmarkScore, ...], Field(max_length=MOST_BENCHMARKS), ListType("map", ("name",))
    ] = ()
    """What the mean is of."""


class SweepStatus(ApiModel):
    """How far the sweep is, and what it found."""

    candidates: Count
    """How many are tried."""
    scored: Count = 0
    """How many have been scored; those whose loss is not finite have no row."""
    rows: Annotated[tuple[SweepRow, ...], Field(max_length=MOST_CANDIDATES), ListType("map", ("candidate",))] = ()
    """The table, in the order of the candidates."""
    winner: FileName | None = None
    """The candidate with the lowest total or the highest score, once all are scored; it becomes the output."""
    plot: S3Uri | None = None
    """Losses or scores over the tried values, as SVG."""
    folder: S3Uri | None = None
    """Where the candidates are, once all are merged for their EvalSuites."""


class MergeReport(ApiModel):
    """What the worker tells about a merge, while it runs and at its end."""

    plan: MergePlan | None = None
    files: Annotated[tuple[MergedFile, ...], Field(max_length=MOST_FILES), ListType("map", ("name",))] = ()
    """The first 256 files of the output that are complete, with their digests. All are in the output's manifest."""
    sweep: SweepStatus | None = None

    def reductions(self) -> Iterator[MergeReport]:
        """Itself, then less and less of it, for a place that is too small: the output's folder has all of it."""
        yield self
        without = self.model_copy(update={"files": ()})
        yield without
        if self.sweep:
            yield without.model_copy(update={"sweep": self.sweep.model_copy(update={"rows": ()})})


class MergeJobStatus(MergeReport, JobStatus):
    """What the operator knows about the job. Users can't write it."""
