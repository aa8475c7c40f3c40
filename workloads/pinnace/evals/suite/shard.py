"""`pinnace eval shard`: one worker of an EvalSuite. It ends well when all attempts have ended, whoever made them."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import time
from collections.abc import Sequence

from pinnace_operator.api.conditions import Reason
from pinnace_operator.api.evalresult import BenchmarkResult
from pinnace_operator.api.outcome import ExitCode, Outcome
from pinnace_operator.api.status import OutputRef

from pinnace.outcome import Checkpointed, OutOfReach
from pinnace.progress import Progress as Reporter
from pinnace.storage import Published, RunDirectory, Storage

from ..assemble import Assembled
from ..blobs import Blobs, open_blobs
from ..command import prepare
from ..lease import Leases
from ..records import Records, Unit
from ..worker import Shard, work
from .check import distinct
from .failures import explained
from .ledger import Account, Ledger
from .options import Job, records_at, run_options, spending
from .publish import published, results

log = logging.getLogger(__name__)
_REFRESH_SECONDS = 15.0
_LOOK_SECONDS = 2.0
_SERVER_SECONDS = 900.0
"""A server that is made anew, as after its node was drained, is waited for: preflight has found it well."""


def shard(job: Job) -> Outcome:
    """Works, then tells the suite's results. Raises the stage failures of `pinnace.outcome`."""
    storage = Storage.from_env()
    reporter = Reporter.from_env(job.identity)
    index = int(os.environ.get("JOB_COMPLETION_INDEX") or 0)
    try:
        return asyncio.run(_until_asked_to_end(_Suite(job, storage, reporter, index)))
    except BaseExceptionGroup as group:
        raise _first(group) from group
    finally:
        reporter.close()


def _first(error: BaseException) -> BaseException:
    """Of what failed at once, the first: the others are its consequences or alike."""
    return _first(error.exceptions[0]) if isinstance(error, BaseExceptionGroup) else error


async def _until_asked_to_end(suite: _Suite) -> Outcome:
    """SIGTERM ends it with everything written that was paid for: exit code 85."""
    task = asyncio.create_task(suite.run())
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    try:
        return await task
    except asyncio.CancelledError:
        raise Checkpointed("asked to end: unfinished attempts go on from their last event") from None


class _Suite:
    def __init__(self, job: Job, storage: Storage, reporter: Reporter, index: int) -> None:
        self._job = job
        self._storage = storage
        self._reporter = reporter
        self._shard = Shard(index, job.spec.shards, job.spec.worker.concurrency, suite=job.uid)
        self._spending = spending(job.spec)
        self._run: RunDirectory = storage.run(job.run_path)

    async def run(self) -> Outcome:
        parts = await self._prepared()
        blobs = open_blobs(records_at(self._job, self._storage))
        ledgers = [
            Ledger(each.name, part.plan, Records(blobs, part.plan.place))
            for each, part in zip(self._job.spec.benchmarks, parts, strict=True)
        ]
        leases = Leases(blobs, self._shard.owner, self._shard.ttl)
        found = await asyncio.to_thread(self._run.published)
        if found is None:
            await self._work(parts, ledgers, blobs, leases)
            found = await published(self._job, self._storage, self._run, ledgers, leases, self._spending)
        return await asyncio.to_thread(self._told, found, ledgers)

    async def _prepared(self) -> list[Assembled]:
        """Every benchmark against the model that is served: its length, and whether it takes tool calls."""
        parts = []
        options = await asyncio.to_thread(run_options, self._job, self._storage, shard=self._shard.index)
        for each in options:
            with explained():
                parts += await prepare(each, patience=_SERVER_SECONDS)
        distinct(parts)
        return parts

    async def _work(self, parts: Sequence[Assembled], ledgers: Sequence[Ledger], blobs: Blobs, leases: Leases) -> None:
        began = await asyncio.to_thread(_began, blobs, self._job.uid)
        account = Account(ledgers, self._spending, began)
        await asyncio.to_thread(account.refresh)
        crashed: dict[Unit, str] = {}
        # A watch that died would let the budget be overrun: then the work ends, too.
        async with asyncio.TaskGroup() as group:
            watch = group.create_task(account.watch(_Teller(self._reporter, account), every=_REFRESH_SECONDS))
            for part, ledger in zip(parts, ledgers, strict=True):
                made = await work(part.plan, part.agent, part.tools, ledger.records, self._shard, stop=account.over)
                crashed |= made.crashed
            for ledger in ledgers:
                await _others(ledger, leases)
            watch.cancel()
        await asyncio.to_thread(account.refresh)
        if crashed and not account.done:
            raise OutOfReach(Reason.SHARD_FAILED, f"no attempt could be made: {next(iter(crashed.values()))}")

    def _told(self, found: Published, ledgers: Sequence[Ledger]) -> Outcome:
        names = {each.plan.loaded.benchmark.name: each.name for each in ledgers}
        table = results(self._job, self._storage, self._run, names, self._spending)
        done, total = sum(each.done for each in table), sum(each.total for each in table)
        self._reporter.report(step=done, total_steps=total, eta_seconds=0, benchmarks=table)
        return Outcome(
            reason=Reason.COMPLETED,
            message="; ".join(map(_line, table)),
            exit_code=ExitCode.COMPLETED,
            step=done,
            output=OutputRef(uri=found.uri, digest=found.digest),
            benchmarks=table,
        )


class _Teller:
    """Reports how far the suite is."""

    def __init__(self, reporter: Reporter, account: Account) -> None:
        self._reporter = reporter
        self._first = account.done
        self._began = time.monotonic()

    def __call__(self, account: Account) -> None:
        rate = (account.done - self._first) / max(1.0, time.monotonic() - self._began)
        self._reporter.report(
            step=account.done,
            total_steps=account.total,
            eta_seconds=int((account.total - account.done) / rate) if rate else None,
            throughput=f"{60 * rate:.1f} attempts/min",
            benchmarks=account.results(),
        )


def _began(blobs: Blobs, uid: str) -> float:
    """When the suite's first attempt could begin: the same for all shards, also after a restart."""
    name = f"began/{uid}.json"
    blobs.claim(name, json.dumps({"seconds": time.time()}).encode())
    return float(json.loads(blobs.get(name) or b"{}")["seconds"])


async def _others(ledger: Ledger, leases: Leases) -> None:
    """Waits for attempts that other shards are still at: there are some when the budget ended the work."""
    held = True
    while held:
        held = await asyncio.to_thread(_held, ledger, leases)
        await asyncio.sleep(_LOOK_SECONDS if held else 0)


def _held(ledger: Ledger, leases: Leases) -> bool:
    """Whether a shard that lives is at an attempt without a record."""
    finished = ledger.records.finished()
    folders = {name.rpartition("/")[0] for name in ledger.records.blobs.names(f"runs/{ledger.records.place.path}")}
    for folder in sorted(each for each in folders if each.endswith("/leases")):
        *_, slug, attempt, _ = folder.split("/")
        if (slug, int(attempt)) in finished:
            continue
        lease = leases.acquire(folder)
        if lease is None:
            return True
        lease.release()
    return False


def _line(each: BenchmarkResult) -> str:
    reach = f" ({each.low} to {each.high})" if each.low else ""
    against = "".join(f", {one.difference} ({one.low} to {one.high}) to {one.suite}" for one in each.compared)
    return f"{each.name} {each.score or '–'}{reach}, {each.done} of {each.total} attempts{against}"
