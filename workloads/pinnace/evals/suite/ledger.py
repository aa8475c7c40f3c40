"""What all shards have done so far, from the records: progress, budget and scores are the suite's, not a shard's."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from pinnace_operator.api.evalresult import MOST_REASONS, BenchmarkResult, Ended

from .. import intervals
from ..graders import Verdict
from ..plan import Plan
from ..records import Records, Unit
from ..worker import Spending

ANSWERED = "answered"
Watcher = Callable[["Account"], None]


@dataclass
class Ledger:
    """One benchmark's account. `name` is the one in the spec."""

    name: str
    plan: Plan
    records: Records
    prompt: int = 0
    completion: int = 0
    ended: Counter[str] = field(default_factory=Counter)
    _seen: set[Unit] = field(default_factory=set)
    _verdicts: dict[Unit, Verdict] = field(default_factory=dict)

    @property
    def done(self) -> int:
        return len(self._seen)

    @property
    def total(self) -> int:
        return len(self.plan.loaded.items) * self.plan.attempts

    def refresh(self) -> None:
        """Reads what is new. Raises `pinnace.storage.StorageError`."""
        finished = self.records.finished()
        there = [unit for unit in self.plan.units() if (unit.slug, unit.attempt) in finished]
        for unit, record in self.records.read([unit for unit in there if unit not in self._seen]).items():
            self._seen.add(unit)
            self.prompt += record.summary.usage.prompt
            self.completion += record.summary.usage.completion
            self.ended[record.summary.termination] += 1
        ungraded = [unit for unit in self._seen if self._verdicts.get(unit, Verdict.UNKNOWN) is Verdict.UNKNOWN]
        grades = self.records.read_grades(ungraded, self.plan.grader)
        self._verdicts.update({unit: grade.verdict for unit, grade in grades.items()})

    def result(self, spending: Spending) -> BenchmarkResult:
        """As far as it is; the score is over what has a verdict."""
        by_item = defaultdict[str, list[bool]](list)
        for unit, verdict in self._verdicts.items():
            if verdict is not Verdict.UNKNOWN:
                by_item[unit.item].append(verdict is Verdict.RIGHT)
        interval = intervals.analytic([sum(each) / len(each) for each in by_item.values()])
        unknown = sum(verdict is Verdict.UNKNOWN for verdict in self._verdicts.values())
        return BenchmarkResult(
            name=self.name,
            done=self.done,
            total=self.total,
            score=percent(interval.value) if interval else None,
            low=percent(interval.low) if interval else None,
            high=percent(interval.high) if interval else None,
            tokens=self.prompt + self.completion,
            cost=cost(spending, self.prompt, self.completion),
            failures=failures(self.ended, unknown=unknown),
        )


@dataclass
class Account:
    """All benchmarks' ledgers under one budget. `began` is when the suite did, in seconds since the epoch."""

    ledgers: Sequence[Ledger]
    spending: Spending
    began: float

    def refresh(self) -> None:
        for each in self.ledgers:
            each.refresh()

    def over(self) -> str:
        """Which bound is reached; empty while none is."""
        bounds = self.spending
        prompt, completion = (sum(getattr(each, name) for each in self.ledgers) for name in ("prompt", "completion"))
        if bounds.tokens is not None and prompt + completion >= bounds.tokens:
            return f"budget: {prompt + completion} of {bounds.tokens} tokens"
        spent = bounds.spent(prompt, completion)
        if bounds.cost is not None and spent >= bounds.cost:
            return f"budget: {spent:.2f} of {bounds.cost:.2f}"
        seconds = time.time() - self.began
        if bounds.seconds is not None and seconds >= bounds.seconds:
            return f"budget: {seconds:.0f} of {bounds.seconds:.0f} seconds"
        return ""

    @property
    def done(self) -> int:
        return sum(each.done for each in self.ledgers)

    @property
    def total(self) -> int:
        return sum(each.total for each in self.ledgers)

    def results(self) -> tuple[BenchmarkResult, ...]:
        return tuple(each.result(self.spending) for each in self.ledgers)

    async def watch(self, tell: Watcher, *, every: float) -> None:
        """Reads again and again, and tells."""
        while True:
            await asyncio.to_thread(self.refresh)
            tell(self)
            await asyncio.sleep(every)


def percent(share: float) -> str:
    return f"{100 * share:.1f}"


def cost(spending: Spending, prompt: int, completion: int) -> str | None:
    priced = spending.prompt_price or spending.completion_price
    return f"{spending.spent(prompt, completion):.2f}" if priced else None


def failures(ended: Counter[str], *, unknown: int = 0, unfinished: int = 0) -> tuple[Ended, ...]:
    """The most frequent reasons for which attempts came to no answer or no verdict."""
    counts = Counter({reason: count for reason, count in ended.items() if reason != ANSWERED})
    counts.update({"unknown": unknown, "unfinished": unfinished})
    return tuple(Ended(reason=reason, count=count) for reason, count in counts.most_common(MOST_REASONS) if count)
