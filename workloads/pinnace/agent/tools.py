"""What the loop needs of tools. `pinnace.tools.client` fits; so does anything with these two methods."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

OK, TOOL_ERROR, INVALID_ARGUMENTS, DENIED = "ok", "tool_error", "invalid_arguments", "denied"
INFRASTRUCTURE = frozenset({"timeout", "overloaded", "unavailable"})
"""Outcomes that say nothing about the agent: neither its score nor its reward may suffer from them."""
OUTCOMES = frozenset({OK, TOOL_ERROR, INVALID_ARGUMENTS, DENIED}) | INFRASTRUCTURE


class ToolReply(Protocol):
    """How a call ended; the shape of `pinnace.tools.outcome.ToolResult`."""

    @property
    def outcome(self) -> str:
        """One of `OUTCOMES`."""

    @property
    def text(self) -> str:
        """What the model reads: the result, or what was wrong and what to do."""

    @property
    def meta(self) -> Mapping[str, Any]:
        """`server`, `attempts`, `cached`, … of the gateway; kept in the log."""


class Tools(Protocol):
    """Tools as an agent has them for one trajectory."""

    async def schemas(self) -> Sequence[Mapping[str, Any]]:
        """The tools in OpenAI's function form."""

    async def call(self, name: str, arguments: Mapping[str, Any]) -> ToolReply:
        """Calls one. Every failure is an outcome; an exception means a bug and ends the trajectory's process."""


@dataclass(frozen=True)
class Reply:
    """A plain `ToolReply`, for tools that live in this process."""

    outcome: str
    text: str
    meta: Mapping[str, Any] = field(default_factory=dict)


class NoTools:
    """For questions that are asked without tools."""

    async def schemas(self) -> Sequence[Mapping[str, Any]]:
        return ()

    async def call(self, name: str, arguments: Mapping[str, Any]) -> ToolReply:  # noqa: ARG002 - the protocol's
        return Reply(INVALID_ARGUMENTS, f"There is no tool {name!r}: answer from what you know.")
