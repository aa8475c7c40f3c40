"""Verdicts on recorded answers. No agent runs here, so that grading may be repeated at will."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from .graders import Answered, Grade, Verdict
from .item import Item
from .plan import Plan
from .records import Record, Records, Unit


@dataclass(frozen=True)
class Graded:
    """What a round of grading did."""

    graded: int
    kept: int
    unknown: int


async def grade_record(plan: Plan, item: Item, record: Record) -> Grade:
    """The verdict on one record. What the infrastructure kept from answering is not solved; a judge is not asked."""
    answered = Answered(item.question, item.answer, record.answer, record.response)
    return await plan.profile.grader.grade(answered, plan.judge)


async def grade_all(
    plan: Plan, records: Records, *, again: bool = False, concurrency: int = 8, units: Sequence[Unit] | None = None
) -> Graded:
    """Grades every record that has no verdict, or an unknown one; with `again` all of them."""
    units = plan.units() if units is None else units
    found = await asyncio.to_thread(records.read, units)
    known = {} if again else await asyncio.to_thread(records.read_grades, list(found), plan.grader)
    due = [unit for unit in found if unit not in known or known[unit].verdict is Verdict.UNKNOWN]
    items = {item.id: item for item in plan.loaded.items}
    gate = asyncio.Semaphore(concurrency)
    unknown = 0

    async def one(unit: Unit) -> None:
        nonlocal unknown
        async with gate:
            grade = await grade_record(plan, items[unit.item], found[unit])
            unknown += grade.verdict is Verdict.UNKNOWN
            await asyncio.to_thread(records.write_grade, unit, plan.grader, grade)

    async with asyncio.TaskGroup() as group:
        for unit in due:
            group.create_task(one(unit))
    return Graded(len(due), len(found) - len(due), unknown)
