"""An agent framework of note, the OpenAI Agents SDK, in an environment of its own."""

from __future__ import annotations

from pathlib import Path

from e2e.oracles.environment import python_of


def agents_python() -> Path:
    """The interpreter that has it."""
    return python_of("agents", ["oracle-agents"])
