"""`arithmetic-tools`: a task small enough that half a million parameters learn it in a minute on a CPU.

The user asks for a sum, the model calls `add`, reads the result and answers. It needs everything an agent needs (a tool
schema, a well-formed call with the right arguments, reading a tool's result, knowing when to stop) and nothing else.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from typing import Any

# To the letter what a ToolSandbox lists of the calculator: so small a model knows only the prompt that it has learned.
TOOLS: list[dict[str, Any]] = [
    {
        "type": "function",
        "function": {
            "name": "add",
            "description": "Adds two numbers.",
            "parameters": {
                "type": "object",
                "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
                "required": ["a", "b"],
            },
        },
    }
]


def question(a: int, b: int) -> str:
    return f"{a}+{b}"


def add(arguments: Mapping[str, object]) -> str:
    """The tool itself; a model's malformed arguments get an error text, as from any tool."""
    a, b = arguments.get("a"), arguments.get("b")
    if not (isinstance(a, int) and isinstance(b, int)):
        return "error: a and b must be integers"
    return str(a + b)


def arithmetic_tools(samples: int, seed: int) -> Iterator[dict[str, Any]]:
    """`samples` conversations in the OpenAI format; the same for the same seed on every machine."""
    dice = random.Random(f"arithmetic-tools-{seed}")  # noqa: S311 - data, not a secret
    for _ in range(samples):
        a, b = dice.randrange(100), dice.randrange(100)
        yield _conversation(question(a, b), a, b)


def arithmetic_tools_noisy(samples: int, seed: int) -> Iterator[dict[str, Any]]:
    """The same, but half of the calls are made with other numbers than the user's: who learns from these knows how a
    call is made and is wrong half of the time, until reward tells which half.
    """
    dice = random.Random(f"arithmetic-tools-noisy-{seed}")  # noqa: S311 - data, not a secret
    for _ in range(samples):
        a, b, c, d = (dice.randrange(100) for _ in range(4))
        yield _conversation(question(a, b), *((a, b) if dice.random() < 0.5 else (c, d)))


def _conversation(asked: str, a: int, b: int) -> dict[str, Any]:
    call = {"type": "function", "function": {"name": "add", "arguments": {"a": a, "b": b}}}
    return {
        "messages": [
            {"role": "user", "content": asked},
            {"role": "assistant", "content": "", "tool_calls": [call]},
            {"role": "tool", "content": str(a + b)},
            {"role": "assistant", "content": str(a + b)},
        ],
        "tools": TOOLS,
    }


BUILTIN: dict[str, Callable[[int, int], Iterator[dict[str, Any]]]] = {
    "arithmetic-tools": arithmetic_tools,
    "arithmetic-tools-noisy": arithmetic_tools_noisy,
}
