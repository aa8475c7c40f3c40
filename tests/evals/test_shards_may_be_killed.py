"""Shards as processes, killed with SIGKILL: nothing is lost, nothing finished is done again, same table."""

from __future__ import annotations

import asyncio
import json
import random
import signal
import sys
from collections import Counter
from pathlib import Path

from pinnace.evals import FolderBlobs, Records
from pinnace.evals.grading import grade_all
from pinnace.evals.report import summarise_run

from e2e.faults.model import Answer, Request, scripted_model

from .conftest import Setup, sums

ITEMS, ATTEMPTS, SHARDS, KILLS = 200, 4, 2, 5


async def test_killed_shards_lose_nothing(setup: Setup, tiny: Path, tmp_path: Path) -> None:
    asked: Counter[str] = Counter()

    async def script(request: Request) -> Answer:
        text = str(request["messages"][1]["content"])
        asked[text] += 1
        number = int(text.removeprefix("What is ").partition("+")[0])
        return Answer(f"<answer>{number + (number % 4 != 0)}</answer>")

    async with scripted_model(script) as model:
        plan, _ = setup(model.url, sums(ITEMS), attempts=ATTEMPTS)
        records = Records(FolderBlobs(tmp_path / "store"), plan.place)
        settings = {"url": model.url, "tiny": str(tiny), "store": str(tmp_path / "store"), "items": ITEMS,
                    "attempts": ATTEMPTS, "count": SHARDS, "config": dict(plan.config)}  # fmt: skip
        dice = random.Random(1)

        async def start(index: int) -> asyncio.subprocess.Process:
            argument = json.dumps({**settings, "index": index})
            script_file = Path(__file__).with_name("shard.py")
            return await asyncio.create_subprocess_exec(sys.executable, str(script_file), argument)

        running = {index: await start(index) for index in range(SHARDS)}
        kills = 0
        while (done := len(await asyncio.to_thread(records.finished))) < ITEMS * ATTEMPTS:
            await asyncio.sleep(0.1)
            if kills < KILLS and done >= (kills + 1) * 100:
                victim = dice.randrange(SHARDS)
                if running[victim].returncode is None:
                    running[victim].send_signal(signal.SIGKILL)
                    await running[victim].wait()
                    kills += 1
                    running[victim] = await start(victim)
            for index, process in running.items():
                if process.returncode not in (None, 0):
                    raise AssertionError(f"shard {index} failed with {process.returncode}")
        codes = await asyncio.gather(*(process.wait() for process in running.values()))
        assert codes == [0] * SHARDS
        assert kills == KILLS
        await grade_all(plan, records)  # a shard may die between an attempt's record and its verdict
        found, grades = records.read(plan.units()), records.read_grades(plan.units(), plan.grader)
        assert len(found) == len(grades) == ITEMS * ATTEMPTS
        summary = summarise_run(plan, found, grades)
        assert (summary.right, summary.wrong, summary.unfinished) == (600, 200, 0)
        table = {item.item: [attempt.verdict for attempt in item.attempts] for item in summary.items}
        undisturbed = {f"sum-{n:03d}": ["right" if n % 4 else "wrong"] * ATTEMPTS for n in range(ITEMS)}
        assert table == undisturbed
        # Only what was in flight in a killed process, and not yet written, may have been asked twice.
        again = sum(count - ATTEMPTS for count in asked.values())
        assert 0 <= again <= kills * 4
