"""The built-in task `arithmetic-tools` as something to play: tasks, their tool, and what an answer is worth."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from pinnace.agent import Tools
from pinnace.agent.tools import INVALID_ARGUMENTS, OK, TOOL_ERROR, Reply
from pinnace.rl.config import Task
from pinnace.tiny.task import BUILTIN, TOOLS, add


def tasks(name: str, samples: int, seed: int) -> Iterator[dict[str, str]]:
    """Questions with their answers. Raises KeyError for a name that is not known."""
    for number, record in enumerate(BUILTIN[name](samples, seed)):
        asked, *_, answered = record["messages"]
        yield {"id": f"{name}-{number}", "question": asked["content"], "answer": answered["content"]}


def reward(task: Task, answer: str | None) -> bool:
    return answer is not None and answer.strip() == task["answer"]


class _Adder:
    async def schemas(self) -> Sequence[Mapping[str, Any]]:
        return TOOLS

    async def call(self, name: str, arguments: Mapping[str, Any]) -> Reply:
        if name != "add":
            return Reply(INVALID_ARGUMENTS, f"error: there is no tool {name!r}, only add")
        text = add(arguments)
        return Reply(TOOL_ERROR if text.startswith("error") else OK, text)


@asynccontextmanager
async def tools(_: Task) -> AsyncIterator[Tools]:
    yield _Adder()
