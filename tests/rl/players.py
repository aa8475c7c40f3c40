"""Agents and rewards that the processes of test_processes.py import by name."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import openai

_HTTP = openai.DefaultAsyncHttpxClient(timeout=600, trust_env=False)


async def two_turns(task: Mapping[str, Any], *, base_url: str, api_key: str) -> str | None:
    """A conversation, whatever the model says."""
    client = openai.AsyncOpenAI(base_url=base_url, api_key=api_key, http_client=_HTTP)
    messages: list[Any] = [{"role": "user", "content": task["question"]}]
    text = None
    for _ in range(2):
        answer = await client.chat.completions.create(model="policy", messages=messages)
        text = answer.choices[0].message.content or ""
        messages += [{"role": "assistant", "content": text}, {"role": "user", "content": "and?"}]
    return text


def coin(task: Mapping[str, Any], answer: str | None) -> float:
    """Right or wrong by the answer's digest: an untrained model gets groups with something to learn from."""
    return float(hashlib.sha256(f"{task['id']}{answer}".encode()).digest()[0] % 2)
