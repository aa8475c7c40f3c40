"""A real tokenizer, tools made of functions, and short ways to run the loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from pinnace.agent import (
    Agent,
    AnswerRule,
    Budget,
    Ended,
    Endpoint,
    EventLog,
    Folder,
    Limits,
    ModelCounter,
    Patience,
    Policy,
    Refiner,
    Sampling,
    Task,
    find_policy,
    run,
)
from pinnace.agent.dialect import DIALECTS
from pinnace.agent.tools import OK, Reply, ToolReply
from pinnace.tiny.model import write_tiny_model

from e2e.faults.model import ScriptedModel

QUICK = Patience(give_up_after=0.2, cap=0.05, first=0.01)
Function = Callable[..., str | Reply]


@pytest.fixture(scope="session")
def counter(tmp_path_factory: pytest.TempPathFactory) -> ModelCounter:
    """The tiny Qwen3's own tokenizer and chat template."""
    folder = tmp_path_factory.mktemp("tiny")
    write_tiny_model(folder)
    return ModelCounter.from_directory(folder)


@dataclass
class Functions:
    """`Tools` made of functions; `calls` are all that were made."""

    functions: dict[str, Function]
    calls: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    async def schemas(self) -> Sequence[Mapping[str, Any]]:
        return [
            {"type": "function", "function": {"name": name, "description": name, "parameters": {"type": "object"}}}
            for name in self.functions
        ]

    async def call(self, name: str, arguments: Mapping[str, Any]) -> ToolReply:
        self.calls.append((name, dict(arguments)))
        await asyncio.sleep(0)
        result = self.functions[name](**arguments)
        return Reply(OK, result) if isinstance(result, str) else result


_OPEN: list[Endpoint] = []


@pytest.fixture(autouse=True)
async def close_connections() -> AsyncIterator[None]:
    """Before the event loop goes."""
    yield
    while _OPEN:
        await _OPEN.pop().aclose()


@dataclass
class Bench:
    """Runs the loop against one scripted model."""

    model: ScriptedModel
    counter: ModelCounter
    second: ScriptedModel | None = None

    def agent(
        self,
        policy: Policy | str = "none",
        *,
        context: int = 8192,
        max_tokens: int = 256,
        dialect: str = "native",
        rule: str = "tag|final",
        **limits: Any,
    ) -> Agent:
        chosen = find_policy(policy) if isinstance(policy, str) else policy
        sampling = Sampling(max_tokens, 0)
        second = self.second or self.model
        reader = Endpoint.at(second.url, second.name, sampling, timeout=5)
        reader._patience = QUICK
        _OPEN.append(reader)
        endpoint = Endpoint.at(self.model.url, self.model.name, sampling, timeout=5)
        endpoint._patience = QUICK
        _OPEN.append(endpoint)
        return Agent(
            model=endpoint,
            counter=self.counter,
            budget=Budget(context, max_tokens),
            policy=chosen,
            limits=Limits(**limits),
            dialect=DIALECTS[dialect],
            rule=AnswerRule(rule),
            refiner=Refiner(reader, chosen.refine, self.counter) if chosen.refine else None,
            folder=Folder(reader, chosen.fold, self.counter, input_tokens=context // 2) if chosen.fold else None,
        )


async def play(agent: Agent, tools: Functions, log: EventLog | None = None, question: str = "What is it?") -> Ended:
    """One trajectory."""
    return await run(Task(question, "You are a helpful assistant."), agent, tools, EventLog() if log is None else log)
