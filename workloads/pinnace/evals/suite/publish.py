"""The end of a suite: one shard writes the report, once, and every shard can say what is in it."""

from __future__ import annotations

import asyncio
import json
import logging
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from pinnace_operator.api.evalbenchmark import EvalBenchmark
from pinnace_operator.api.evalresult import BenchmarkResult
from pinnace_operator.api.evalresult import Compared as ComparedResult

from pinnace.storage import Ancestor, Conflict, Published, RunDirectory, Storage

from .. import metrics
from ..blobs import FolderBlobs
from ..command import compare_summaries
from ..errors import BadPlan
from ..grading import grade_all
from ..lease import Lease, Leases
from ..report import Summary, summarise_run
from ..report.page import Compared
from ..report.write import read_trajectories, write_report
from ..worker import Spending
from .ledger import Ledger, cost, failures, percent
from .options import Job

log = logging.getLogger(__name__)
_TTL = 60
_LOOK_SECONDS = 2


async def published(
    job: Job, storage: Storage, run: RunDirectory, ledgers: Sequence[Ledger], leases: Leases, spending: Spending
) -> Published:
    """The report: written by whoever gets the lease first. Raises `pinnace.storage.StorageError`."""
    while (found := await asyncio.to_thread(run.published)) is None:
        lease = await asyncio.to_thread(leases.acquire, f"publishing/{job.uid}")
        if lease is None:
            await asyncio.sleep(_LOOK_SECONDS)
            continue
        async with _renewed(lease):
            for each in ledgers:
                await grade_all(each.plan, each.records)  # what has no verdict: its judge failed, or its shard died
            try:
                return await asyncio.to_thread(_publish, job, storage, run, ledgers, spending)
            except Conflict:
                continue  # somebody took us for dead and was faster
    return found


@asynccontextmanager
async def _renewed(lease: Lease) -> AsyncIterator[None]:
    async def beat() -> None:
        held = True
        while held:
            await asyncio.sleep(_TTL / 4)
            held = await asyncio.to_thread(lease.renew)

    heart = asyncio.create_task(beat())
    try:
        yield
    finally:
        heart.cancel()
        await asyncio.gather(heart, return_exceptions=True)
        await asyncio.to_thread(lease.release)


def _publish(job: Job, storage: Storage, run: RunDirectory, ledgers: Sequence[Ledger], spending: Spending) -> Published:
    summaries, slugs = [], {}
    for each in ledgers:
        units = each.plan.units()
        records = each.records.read(units)
        grades = each.records.read_grades(list(records), each.plan.grader)
        summaries.append(summarise_run(each.plan, records, grades, spending=spending))
        slugs.update({(each.plan.loaded.benchmark.name, item.id): item.slug for item in each.plan.loaded.items})
    compared = comparisons(job, storage, summaries)
    with tempfile.TemporaryDirectory(prefix="pinnace-report-") as folder:
        write_report(
            FolderBlobs(Path(folder)),
            summaries,
            title=f"{job.name}: {summaries[0].config.get('model')}",
            trajectories=read_trajectories({each.plan.loaded.benchmark.name: each.records for each in ledgers}, slugs),
            comparisons=[one for several in compared.values() for one in several],
        )
        lineage = [
            Ancestor(ref=field, uri=str(model.uri), digest=model.digest)
            for field, model in job.resolved.items()
            if model.uri
        ]
        made = storage.publish(Path(folder) / "report", run.output, kind="evaluation", lineage=lineage, replace=False)
    log.info("the report is at %s", made.uri)
    return made


def comparisons(job: Job, storage: Storage, summaries: Sequence[Summary]) -> dict[str, list[Compared]]:
    """By suite of compareTo: the benchmarks that both have. What can't be compared is logged and left out."""
    found: dict[str, list[Compared]] = {}
    for name in job.spec.compare_to:
        others = _stored(storage, str(job.resolved[f"compareTo.{name}"].uri))
        theirs = {(each.benchmark, each.split, each.revision): each for each in others}
        found[name] = []
        for each in summaries:
            base = theirs.get((each.benchmark, each.split, each.revision))
            try:
                pair = compare_summaries(base, each) if base else None
            except BadPlan as error:
                log.warning("%s is not compared with %s: %s", each.benchmark, name, error)
                continue
            if pair:
                found[name].append(replace(pair, first=f"{name}: {pair.first}", second=f"{job.name}: {pair.second}"))
    return found


def results(job: Job, storage: Storage, run: RunDirectory, names: Mapping[str, str], spending: Spending) -> tuple[
    BenchmarkResult, ...
]:  # fmt: skip
    """The table, from the report that is published.

    Args:
        names: of the benchmarks in the spec, by their own names.
    """
    summaries = _stored(storage, str(run.output))
    wanted = {each.name: each for each in job.spec.benchmarks}
    compared = comparisons(job, storage, summaries)
    return tuple(
        _result(each, wanted[names[each.benchmark]], spending, _differences(each, compared)) for each in summaries
    )


def _stored(storage: Storage, report: str) -> list[Summary]:
    with storage.open(f"{report}/summary.json") as file:
        return [Summary.model_validate(each) for each in json.load(file)]


def _differences(summary: Summary, compared: Mapping[str, Sequence[Compared]]) -> tuple[ComparedResult, ...]:
    return tuple(
        ComparedResult(
            suite=suite,
            difference=f"{100 * pair.result.difference.value:+.1f}",
            low=f"{100 * pair.result.difference.low:+.1f}",
            high=f"{100 * pair.result.difference.high:+.1f}",
        )
        for suite, pairs in compared.items()
        for pair in pairs
        if pair.benchmark == summary.benchmark
    )


def _result(
    summary: Summary, wanted: EvalBenchmark, spending: Spending, compared: tuple[ComparedResult, ...]
) -> BenchmarkResult:
    score, efforts = summary.score, summary.efforts
    k = wanted.pass_at or summary.attempts
    solved = metrics.mean([metrics.pass_at(n, c, k) for n, c in (item.counts for item in summary.items)])
    return BenchmarkResult(
        name=wanted.name,
        done=summary.finished,
        total=summary.planned,
        score=percent(score.value) if score else None,
        low=percent(score.low) if score else None,
        high=percent(score.high) if score else None,
        pass_at=None if solved is None else percent(solved),
        tokens=efforts.prompt_tokens + efforts.completion_tokens,
        cost=cost(spending, efforts.prompt_tokens, efforts.completion_tokens),
        failures=failures(Counter(summary.terminations), unknown=summary.unknown, unfinished=summary.unfinished),
        compared=compared,
    )
