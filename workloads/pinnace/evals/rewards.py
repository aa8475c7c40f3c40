"""Graders as rewards of an RLRun: called with a task (`question`, `answer`) and the agent's answer.

Each has a `check` of all tasks, which an RLRun calls before anything expensive starts.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from .benchmark import Loaded
from .benchmarks import find
from .errors import BadPlan
from .graders import Answered, Grade, Grader, Judge, RuleGrader
from .graders.rules import RULES

Task = Mapping[str, Any]


@dataclass(frozen=True)
class GraderReward:
    """A grader, with a judge if it needs one."""

    grader: Grader
    judge: Callable[[], Judge | None] = lambda: None

    async def __call__(self, task: Task, answer: str | None) -> Grade:
        return await self.grader.grade(Answered(task["question"], task["answer"], answer, answer or ""), self.judge())

    def check(self, tasks: Iterable[Task]) -> None:
        """Raises ValueError for a task that can't be graded."""
        for task in tasks:
            question, answer = task.get("question"), task.get("answer")
            if not isinstance(question, str) or not isinstance(answer, str) or not answer.strip():
                raise ValueError(f"task {task['id']!r} needs a `question` and an `answer`, both texts, to be graded")
            if isinstance(self.grader, RuleGrader) and not self.grader.rule(answer, answer):
                raise ValueError(
                    f"task {task['id']!r}: by the rule {self.grader.name} not even its own answer is right"
                )


@cache
def _judge() -> Judge:
    url, model = os.environ["PINNACE_JUDGE_URL"], os.environ["PINNACE_JUDGE_MODEL"]
    return Judge.at(url, model, api_key=os.environ.get("PINNACE_JUDGE_API_KEY", "none"))


exact, exact_ignoring_case, number, gaia = (
    GraderReward(RuleGrader(name, RULES[name])) for name in ("exact", "exact-ignoring-case", "number", "gaia")
)
judged = GraderReward(find("hle").profile("official").grader, _judge)
"""By the model that PINNACE_JUDGE_URL and PINNACE_JUDGE_MODEL name, with HLE's prompt; unknown where it fails."""


def write_tasks(loaded: Loaded, to: Path) -> None:
    """Questions as JSON lines. Raises `BadPlan` for one that has images or files: tasks are texts."""
    if beyond := [item.id for item in loaded.items if item.images or item.files]:
        raise BadPlan(
            f"{loaded.benchmark.name}: {beyond[0]} has images or files, and tasks are texts: leave it out (--ids)"
        )
    with to.open("w", encoding="utf-8") as file:
        for item in loaded.items:
            question, system = loaded.benchmark.ask(item), loaded.benchmark.system
            row = {"id": item.slug, "question": question, "system": system, "answer": item.answer}
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
