"""One shard's work: takes attempts nobody has finished and nobody is at, runs the agent, writes records.

Whatever dies, nothing is lost and nothing is done twice: a record is written once (the first counts), a lease keeps
others away, and an unfinished trajectory goes on from its last written event, here or in another shard.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from pinnace.agent import Agent, EventLog, run, summarise
from pinnace.agent.steps import read_story

from .contamination import GuardedTools
from .grading import grade_record
from .item import Item
from .lease import Lease, Leases
from .plan import Plan, ToolsFor
from .records import Checkpointer, Record, Records, Unit

log = logging.getLogger(__name__)
_LOOK_SECONDS = 2
"""How often to look whether others have finished."""


@dataclass(frozen=True)
class Spending:
    """Bounds of a whole run; None: no bound. What is not begun when one is reached is reported as not finished.

    Attributes:
        tokens: prompt and completion tokens of the policy model.
        cost: in the currency of the prices, which are for a million tokens.
    """

    tokens: int | None = None
    cost: float | None = None
    seconds: float | None = None
    prompt_price: float = 0.0
    completion_price: float = 0.0

    def spent(self, prompt: int, completion: int) -> float:
        """Cost of so many tokens."""
        return (prompt * self.prompt_price + completion * self.completion_price) / 1_000_000


@dataclass
class Progress:
    """What this worker has done; `crashed`: attempts that were given up, with why."""

    total: int = 0
    done: int = 0
    kept: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    crashed: dict[Unit, str] = field(default_factory=dict)
    stopped: str = ""


@dataclass(frozen=True)
class Shard:
    """This worker among others. Each begins with its own share and then helps the others.

    Attributes:
        suite: what tells its shards from those of others that use the same records at the same time.
    """

    index: int = 0
    count: int = 1
    concurrency: int = 8
    ttl: float = 60
    checkpoint_seconds: float = 10
    suite: str = ""

    @property
    def owner(self) -> str:
        return f"{self.suite}-{self.index}" if self.suite else f"shard-{self.index}"


async def work(
    plan: Plan,
    agent: Agent,
    tools: ToolsFor,
    records: Records,
    shard: Shard | None = None,
    *,
    spending: Spending | None = None,
    on_progress: Callable[[Progress], None] = lambda _: None,
    stop: Callable[[], str] = lambda: "",
) -> Progress:
    """Works until every attempt of the plan is finished, by whomever, or the budget is spent.

    Args:
        stop: asked before an attempt is begun; says why none should be any more.

    Raises:
        pinnace.storage.StorageError, OSError: the records can't be read or written. Start again: all that was written
            counts.
    """
    worker = _Worker(plan, agent, tools, records, shard or Shard(), spending or Spending(), on_progress, stop)
    return await worker.work()


class _Worker:
    def __init__(
        self,
        plan: Plan,
        agent: Agent,
        tools: ToolsFor,
        records: Records,
        shard: Shard,
        spending: Spending,
        on_progress: Callable[[Progress], None],
        stop: Callable[[], str],
    ) -> None:
        self.plan = plan
        self.agent = agent
        self.tools = tools
        self.records = records
        self.shard = shard
        self.spending = spending
        self.progress = Progress()
        self._on_progress = on_progress
        self._stop = stop
        self._leases = Leases(records.blobs, shard.owner, shard.ttl)
        self._items = {item.id: item for item in plan.loaded.items}
        self._guard = plan.guard
        self._began = 0.0

    async def work(self) -> Progress:
        self._began = asyncio.get_running_loop().time()
        await asyncio.to_thread(self.records.describe, self.plan.config)
        waiting = deque(await self._unfinished())
        while waiting and not self.progress.stopped:
            elsewhere: list[Unit] = []
            async with asyncio.TaskGroup() as group:
                for _ in range(min(self.shard.concurrency, len(waiting))):
                    group.create_task(self._drain(waiting, elsewhere))
            if elsewhere and not self.progress.stopped:
                # Others are at these. They finish, or their leases run out.
                await asyncio.sleep(min(self.shard.ttl / 4, _LOOK_SECONDS))
                finished = await asyncio.to_thread(self.records.read, elsewhere)
                elsewhere = [unit for unit in elsewhere if unit not in finished]
            waiting = deque(elsewhere)
        return self.progress

    async def _unfinished(self) -> list[Unit]:
        units = self.plan.units()
        finished = await asyncio.to_thread(self.records.finished)
        left = [unit for unit in units if (unit.slug, unit.attempt) not in finished]
        self.progress.total, self.progress.kept = len(units), len(units) - len(left)
        self._on_progress(self.progress)
        order = {unit: (number - self.shard.index) % self.shard.count for number, unit in enumerate(units)}
        return sorted(left, key=lambda unit: order[unit])

    async def _drain(self, waiting: deque[Unit], elsewhere: list[Unit]) -> None:
        while waiting and not self.progress.stopped:
            unit = waiting.popleft()
            self.progress.stopped = self._over_budget() or self._stop()
            if self.progress.stopped:
                return
            lease = await asyncio.to_thread(self._leases.acquire, f"{self.records.place.of(unit)}/leases")
            if lease is None:
                elsewhere.append(unit)
                continue
            if await asyncio.to_thread(self._has_record, unit):
                await asyncio.to_thread(self.records.blobs.delete, [f"{lease.folder}/{lease.generation:06d}.json"])
                continue
            await self._attempt(unit, lease)
            self._on_progress(self.progress)

    def _has_record(self, unit: Unit) -> bool:
        return self.records.blobs.get(f"{self.records.place.of(unit)}/record.json") is not None

    async def _attempt(self, unit: Unit, lease: Lease) -> None:
        """Runs one attempt under its lease; begins anew, a bounded number of times, after a crash."""
        for number in range(self.plan.crashes + 1):
            last = number == self.plan.crashes
            try:
                if await self._under(lease, unit, last=last):
                    await asyncio.to_thread(self.records.clean, unit)
                    return
            except (OSError, asyncio.CancelledError):
                raise
            except Exception as error:
                from pinnace.storage import StorageError

                if isinstance(error, StorageError):
                    raise
                log.exception("%s, attempt %d crashed (try %d)", unit.item, unit.attempt, number + 1)
                if last:
                    self.progress.crashed[unit] = f"{type(error).__name__}: {error}"
                    await asyncio.to_thread(lease.release)

    async def _under(self, lease: Lease, unit: Unit, *, last: bool) -> bool:
        """One try; false if it should be begun anew."""
        written, pieces = await asyncio.to_thread(self.records.pieces, unit)
        checkpointer = Checkpointer(self.records, unit, written=pieces, every=self.shard.checkpoint_seconds)
        body = asyncio.create_task(self._run(unit, EventLog(written, on_append=checkpointer), checkpointer, last=last))
        heart = asyncio.create_task(self._beat(lease, checkpointer))
        try:
            await asyncio.wait({body, heart}, return_when=asyncio.FIRST_COMPLETED)
            if not body.done():
                body.cancel()
                with suppress(asyncio.CancelledError):
                    await body
                heart.result()  # raises what the store raised
                log.warning("%s, attempt %d: another worker has taken it over", unit.item, unit.attempt)
                return True
            return body.result()
        except asyncio.CancelledError:
            # The process is asked to end: what was paid for is kept.
            body.cancel()
            await asyncio.gather(body, return_exceptions=True)
            await asyncio.to_thread(checkpointer.flush)
            raise
        finally:
            for task in (body, heart):
                task.cancel()
            await asyncio.gather(body, heart, return_exceptions=True)

    async def _beat(self, lease: Lease, checkpointer: Checkpointer) -> None:
        """Renews the lease and writes the trajectory; returns when the lease is lost."""
        step = min(1.0, self.shard.ttl / 6, self.shard.checkpoint_seconds)
        clock = asyncio.get_running_loop().time
        renewed = clock()
        while True:
            await asyncio.sleep(step)
            if checkpointer.due:
                await asyncio.to_thread(checkpointer.flush)
            if clock() - renewed >= self.shard.ttl / 3:
                if not await asyncio.to_thread(lease.renew):
                    return
                renewed = clock()

    async def _run(self, unit: Unit, events: EventLog, checkpointer: Checkpointer, *, last: bool) -> bool:
        item = self._items[unit.item]
        async with self.tools(item) as tools:
            await run(self.plan.task(item), self.agent, GuardedTools(tools, self._guard), events)
        # Before the pieces are deleted: none may be written after that.
        await asyncio.to_thread(checkpointer.close)
        record = self._record(item, unit, events)
        self.progress.prompt_tokens += record.summary.usage.prompt
        self.progress.completion_tokens += record.summary.usage.completion
        if record.summary.not_the_agent and not last:
            log.warning("%s, attempt %d: %s: begun anew", unit.item, unit.attempt, record.detail)
            await asyncio.to_thread(self.records.forget, unit)
            return False
        if await asyncio.to_thread(self.records.write, unit, record, events):
            grade = await grade_record(self.plan, item, record)
            await asyncio.to_thread(self.records.write_grade, unit, self.plan.grader, grade)
            self.progress.done += 1
        return True

    def _record(self, item: Item, unit: Unit, events: EventLog) -> Record:
        ended, place = events.ended, self.records.place
        assert ended is not None  # noqa: S101 - `run` returned
        replies = read_story(events).results.values()
        return Record(
            benchmark=place.benchmark,
            split=place.split,
            revision=place.revision,
            config=place.config,
            item=unit.item,
            attempt=unit.attempt,
            question=item.question,
            groups=dict(item.groups),
            answer=ended.answer,
            response=ended.response,
            detail=ended.detail,
            summary=summarise(events),
            worker=self.shard.owner,
            finished=datetime.now(UTC).isoformat(timespec="seconds"),
            blocked=sum(bool(reply.meta.get("blocked") or reply.meta.get("removed")) for reply in replies),
            canaries=sum(bool(reply.meta.get("canary")) for reply in replies),
        )

    def _over_budget(self) -> str:
        bounds, done = self.spending, self.progress
        used = done.prompt_tokens + done.completion_tokens
        if bounds.tokens is not None and used >= bounds.tokens:
            return f"budget: {used} of {bounds.tokens} tokens"
        cost = bounds.spent(done.prompt_tokens, done.completion_tokens)
        if bounds.cost is not None and cost >= bounds.cost:
            return f"budget: {cost:.2f} of {bounds.cost:.2f}"
        seconds = asyncio.get_running_loop().time() - self._began
        if bounds.seconds is not None and seconds >= bounds.seconds:
            return f"budget: {seconds:.0f} of {bounds.seconds:.0f} seconds"
        return ""


def describe_progress(progress: Progress) -> dict[str, Any]:
    """For progress reports and logs."""
    return {
        "done": progress.done + progress.kept,
        "total": progress.total,
        "promptTokens": progress.prompt_tokens,
        "completionTokens": progress.completion_tokens,
        "crashed": len(progress.crashed),
    }
