"""How far a benchmark is and what it came to: what workers report, and what the status shows."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from pinnace_operator.api.base import ApiModel, ListType
from pinnace_operator.api.fields import whole

MOST_BENCHMARKS = 12
MOST_COMPARED = 4
MOST_REASONS = 4
_Count = Annotated[int, whole(0, 2**53)]
Percent = Annotated[str, Field(max_length=12)]


class Ended(ApiModel):
    """Attempts that ended for one reason."""

    reason: Annotated[str, Field(min_length=1, max_length=32)]
    """`unfinished`, `unknown` (no verdict), or how trajectories ended, such as `turns` or `tool_infrastructure`."""
    count: _Count
    """How many."""


class Compared(ApiModel):
    """The difference to another suite on the questions that both have."""

    suite: Annotated[str, Field(min_length=1, max_length=63)]
    """The other suite."""
    difference: Percent
    """This one minus the other, in points of percent, such as `+12.5`."""
    low: Percent
    """Lower end of the 95 % interval."""
    high: Percent
    """Upper end of the 95 % interval."""


class BenchmarkResult(ApiModel):
    """One benchmark. Scores are in percent; attempts that did not finish count as not solved once the suite ends."""

    name: Annotated[str, Field(min_length=1, max_length=63)]
    """As in spec.benchmarks."""
    done: _Count = 0
    """Attempts that have ended."""
    total: _Count = 0
    """Attempts in all; 0 until the data was read."""
    score: Percent | None = None
    """avg@k, so far or in the end."""
    low: Percent | None = None
    """Lower end of its 95 % interval, clustered by question."""
    high: Percent | None = None
    """Upper end of its 95 % interval."""
    pass_at: Percent | None = None
    """pass@K, of benchmarks[].passAt; only in the end."""
    tokens: _Count = 0
    """Tokens that the model read and wrote."""
    cost: Annotated[str, Field(max_length=24)] | None = None
    """By the prices of spec.budget."""
    failures: Annotated[tuple[Ended, ...], Field(max_length=MOST_REASONS), ListType("map", ("reason",))] = ()
    """Attempts that came to no answer, by reason; the most frequent ones."""
    compared: Annotated[tuple[Compared, ...], Field(max_length=MOST_COMPARED), ListType("map", ("suite",))] = ()
    """Differences to the suites of spec.compareTo."""


BenchmarkResults = Annotated[tuple[BenchmarkResult, ...], Field(max_length=MOST_BENCHMARKS)]
