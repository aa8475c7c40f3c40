"""What a MergeJob's pod tells the operator while it runs."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from itertools import islice
from time import monotonic

from pinnace_operator.api.merge_status import MOST_FILES, MergedFile, MergePlan, MergeReport, SweepStatus

from pinnace.progress import Progress as Reporter
from pinnace.storage.manifest import FileEntry

from .plan import Plan
from .shards import Progress

log = logging.getLogger(__name__)
_LOG_SECONDS = 10.0


class Report:
    """Counts bytes over all merges of a job, each as large as the first."""

    def __init__(self, reporter: Reporter, plan: Plan, *, merges: int) -> None:
        self._reporter = reporter
        self._merges = merges
        self._size = plan.output_bytes
        self._before = 0
        self._start: tuple[float, int] | None = None
        self._logged = 0.0
        self.merge = MergeReport(
            plan=MergePlan(
                tensors=len(plan.tensors),
                input_bytes=plan.input_bytes,
                output_bytes=plan.output_bytes,
                files=len(plan.shards),
            )
        )
        self._send(0)

    def output(self, now: Progress) -> None:
        """A part of the output itself is durable."""
        self.merge = self.merge.model_copy(update={"files": merged_files(now.shards)})
        self.part(now)

    def part(self, now: Progress) -> None:
        """A part is durable."""
        if self._start is None:  # what an earlier attempt has done says nothing about the speed
            self._start = (monotonic(), now.bytes)
        seconds, done = monotonic() - self._start[0], now.bytes - self._start[1]
        if seconds > 0 and done > 0:
            self._send(now.bytes, rate=done / seconds)
        else:
            self._send(now.bytes)

    def scored(self, samples: int, total: int) -> None:
        """A sample of a candidate is scored: the bytes stand still meanwhile."""
        self._send(self._size, metrics={"samples_scored": str(samples), "samples_total": str(total)})

    def sweep(self, status: SweepStatus, merged: int | None = None) -> None:
        """One candidate more is merged, and scored unless EvalSuites do that; the next merge begins."""
        self.merge = self.merge.model_copy(update={"sweep": status})
        self._before, self._start = (status.scored if merged is None else merged) * self._size, None
        self._send(0)

    def _send(self, here: int, *, rate: float | None = None, metrics: Mapping[str, str] | None = None) -> None:
        done, total = self._before + here, self._merges * self._size
        self._reporter.report(
            step=done,
            total_steps=max(1, total),
            eta_seconds=int((total - done) / rate) if rate else None,
            throughput=f"{rate / 2**20:.0f} MiB/s" if rate else None,
            metrics=metrics,
            merge=self.merge,
        )
        if rate and monotonic() - self._logged > _LOG_SECONDS:
            self._logged = monotonic()
            log.info("%d of %d MiB, %.0f MiB/s", done >> 20, total >> 20, rate / 2**20)


def merged_files(entries: Iterable[FileEntry]) -> tuple[MergedFile, ...]:
    """Files of a manifest as the status shows them, so many as it may."""
    found = (MergedFile(name=each.path, bytes=each.size, digest=f"sha256:{each.sha256}") for each in entries)
    return tuple(islice(found, MOST_FILES))
