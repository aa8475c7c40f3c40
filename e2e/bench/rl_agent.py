"""The agent and the reward of recipe A, as a user would write them: `openai`, unmodified, and a comparison."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import openai
from pinnace.tiny.task import add, question

TURNS = 3
_HTTP = openai.DefaultAsyncHttpxClient(timeout=600, trust_env=False)


async def play(task: Mapping[str, Any], *, base_url: str, api_key: str) -> str | None:
    """Asks, calls the tool as the model says, and stops at an answer."""
    client = openai.AsyncOpenAI(base_url=base_url, api_key=api_key, http_client=_HTTP)
    messages: list[Any] = [{"role": "user", "content": task["question"]}]
    for _ in range(TURNS):
        answer = await client.chat.completions.create(model="policy", messages=messages)
        message = answer.choices[0].message
        if not message.tool_calls:
            return message.content
        messages.append(message.model_dump(exclude_none=True))
        for call in message.tool_calls:
            result = add(json.loads(call.function.arguments)) if call.type == "function" else ""
            messages.append({"role": "tool", "tool_call_id": call.id, "content": result})
    return None


def reward(task: Mapping[str, Any], answer: str | None) -> float:
    """1 for the sum, 0 for anything else."""
    return float(answer == task["answer"])


def tasks() -> Iterator[dict[str, str]]:
    """Every sum of two numbers below 100."""
    for a in range(100):
        for b in range(100):
            yield {"id": f"{a}+{b}", "question": question(a, b), "answer": str(a + b)}


def write_tasks(path: Path) -> None:
    path.write_text("".join(json.dumps(task) + "\n" for task in tasks()))
