"""What is going to be evaluated, checked before anything costs money."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any

from pinnace.agent import Agent, Task, Tools

from .benchmark import Loaded
from .contamination import Guard
from .errors import BadPlan
from .graders import Judge, Profile
from .item import Item
from .records import Place, Unit, config_hash

ToolsFor = Callable[[Item], AbstractAsyncContextManager[Tools]]
"""Opens one trajectory's tools (its lease) with the item's files in reach."""
_MOST_ATTEMPTS = 4096


@dataclass(frozen=True)
class Plan:
    """One benchmark under one configuration: what is asked, how often, and how it is graded. Grading needs no agent.

    Attributes:
        config: everything that shapes a trajectory, as data: see `configuration`.
        profile_name: of the grader, for reports.
        crashes: how often an attempt is begun anew after an exception, or after the infrastructure failed it.
    """

    loaded: Loaded
    attempts: int
    config: Mapping[str, Any]
    profile: Profile
    profile_name: str
    judge: Judge | None = None
    crashes: int = 2

    @property
    def place(self) -> Place:
        return Place(self.loaded.benchmark.name, self.loaded.split, self.loaded.revision, config_hash(self.config))

    @property
    def grader(self) -> str:
        """What verdicts are filed under: grader, and the judge's model."""
        judge = f"@{self.judge.model.name}" if self.profile.grader.needs_judge and self.judge is not None else ""
        return self.profile.grader.digest + judge

    @property
    def guard(self) -> Guard:
        benchmark = self.loaded.benchmark
        return Guard(benchmark.blocked, [item.canary for item in self.loaded.items])

    def units(self) -> list[Unit]:
        """All attempts; every item once before any twice, so that a part of a run is a fair part."""
        items = self.loaded.items
        return [Unit(item.id, item.slug, attempt) for attempt in range(self.attempts) for item in items]

    def task(self, item: Item) -> Task:
        """What the agent is asked. The reference is not part of it."""
        question = self.loaded.benchmark.ask(item)
        if item.files:
            names = ", ".join(path.name for path in item.files)
            question += f"\n\nFiles for this question, in your workspace: {names}"
        return Task(question, self.loaded.benchmark.system, item.images)

    def check(self, *, pass_at: int | None = None) -> None:
        """Raises `BadPlan` for what can't work."""
        split = self.loaded.benchmark.splits.get(self.loaded.split)
        if not 1 <= self.attempts <= _MOST_ATTEMPTS:
            raise BadPlan(f"{self.attempts} attempts: use 1 to {_MOST_ATTEMPTS}")
        if pass_at is not None and pass_at > self.attempts:
            raise BadPlan(f"pass@{pass_at} is undefined for {self.attempts} attempts: ask for at least -k {pass_at}")
        if split is not None and not split.graded:
            raise BadPlan(
                f"{self.loaded.benchmark.name}, {self.loaded.split}: its answers are not public; "
                "use another split, or export the answers for its leaderboard"
            )
        if self.profile.grader.needs_judge and self.judge is None:
            raise BadPlan(
                f"{self.loaded.benchmark.name} is graded by a judge ({self.profile.judge or 'any model'}): give "
                "--judge-url, --judge-model and, by the environment, PINNACE_JUDGE_API_KEY"
            )
        if any(item.images for item in self.loaded.items) and self.config.get("images") is False:
            raise BadPlan(f"{self.loaded.benchmark.name}, {self.loaded.split} has images: take a text split")


def configuration(
    agent: Agent,
    loaded: Loaded,
    *,
    model_digest: str | None,
    sampling: Mapping[str, Any],
    tools: str,
    second: str | None,
) -> dict[str, Any]:
    """Everything that shapes a trajectory, as data: what records are filed under, and what reports print.

    Args:
        model_digest: of the served model, where it is known; without it, two models of one name share records.
        sampling: as the model is asked.
        tools: which tools, in words that change when they do.
        second: the model that refines and folds.
    """
    return {
        "model": agent.model.name,
        "modelDigest": model_digest,
        "sampling": dict(sampling),
        "dialect": agent.dialect.name,
        "policy": agent.policy.model_dump(mode="json", by_alias=True),
        "policyHash": agent.policy.digest,
        "limits": agent.limits.model_dump(mode="json", by_alias=True),
        "context": agent.budget.context,
        "reserve": agent.budget.reserve,
        "rule": agent.rule.text,
        "system": loaded.benchmark.system,
        "tools": tools,
        "secondModel": second,
    }
