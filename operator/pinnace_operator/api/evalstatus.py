"""What the operator reports about an EvalSuite, beside what it reports about every job."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from pinnace_operator.api.base import ListType
from pinnace_operator.api.evalresult import BenchmarkResults
from pinnace_operator.api.status import JobStatus


class EvalSuiteStatus(JobStatus):
    """What the operator knows about the suite. Users can't write it."""

    score: Annotated[str, Field(max_length=32)] | None = None
    """Mean avg@k over the benchmarks in percent, with half of its 95 % interval, such as `63.3 ± 4.1`."""
    benchmarks: Annotated[BenchmarkResults, ListType("map", ("name",))] = ()
    """One entry a benchmark, also while it runs."""
