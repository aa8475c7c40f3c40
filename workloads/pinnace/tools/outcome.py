"""How a tool call ends: the words that gateway, servers, sandboxes, clients and the reward layer share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

META_OUTCOME = "pinnace.dev/outcome"
META_ERROR = "pinnace.dev/error"
META_REQUEST = "pinnace.dev/requestId"


class Outcome(StrEnum):
    """The type of a call's end. Only `ok` and `tool_error` are the tool's own word.

    A reward may judge `ok`, `tool_error` and `invalid_arguments`; `timeout`, `overloaded` and `unavailable` say nothing
    about the policy and must not be punished.
    """

    OK = "ok"
    TOOL_ERROR = "tool_error"
    TIMEOUT = "timeout"
    OVERLOADED = "overloaded"
    UNAVAILABLE = "unavailable"
    INVALID_ARGUMENTS = "invalid_arguments"
    DENIED = "denied"

    @property
    def infrastructure(self) -> bool:
        """Whether another replica, or the same one later, might have done better."""
        return self in _INFRASTRUCTURE


_INFRASTRUCTURE = frozenset({Outcome.TIMEOUT, Outcome.OVERLOADED, Outcome.UNAVAILABLE})


@dataclass(frozen=True)
class CallError:
    """Why a call did not end `ok`, for a person and for a program.

    Args:
        message: what is wrong and what to do.
        path: where in the arguments, as a JSON path (`$.query`), for `invalid_arguments`.
        suggestions: nearest names of an unknown tool.
        retry_after: seconds after which trying again makes sense.
    """

    message: str
    path: str | None = None
    suggestions: tuple[str, ...] = ()
    retry_after: float | None = None

    def to_json(self) -> dict[str, Any]:
        """The wire form; absent parts are left out."""
        parts: dict[str, Any] = {"message": self.message}
        if self.path is not None:
            parts["path"] = self.path
        if self.suggestions:
            parts["suggestions"] = list(self.suggestions)
        if self.retry_after is not None:
            parts["retryAfterSeconds"] = self.retry_after
        return parts

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> CallError:
        """The reverse of `to_json`; unknown parts are ignored."""
        return cls(
            message=str(value.get("message", "")),
            path=value.get("path"),
            suggestions=tuple(value.get("suggestions") or ()),
            retry_after=value.get("retryAfterSeconds"),
        )


@dataclass(frozen=True)
class ToolResult:
    """One shape for everything that a tool can return.

    Args:
        outcome: see `Outcome`.
        content: MCP content blocks (text, image, audio, resource, resource_link).
        structured: the structured content, if the tool gives it.
        error: why it is not `ok`; for `tool_error` the tool's own text is in `content`.
        meta: `requestId`, `attempts`, `ms`, and where it applies `server`, `backup`, `cached`, `replayed`.
    """

    outcome: Outcome
    content: tuple[Mapping[str, Any], ...] = ()
    structured: Any = None
    error: CallError | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        return self.outcome is Outcome.OK

    @property
    def text(self) -> str:
        """The text blocks, one a line; without any, the error's message."""
        texts = [str(block.get("text", "")) for block in self.content if block.get("type") == "text"]
        return "\n".join(texts) if texts or self.error is None else self.error.message

    def to_json(self) -> dict[str, Any]:
        """The answer of `POST /call`."""
        parts: dict[str, Any] = {"outcome": str(self.outcome), "content": list(self.content), "isError": not self.ok}
        if self.structured is not None:
            parts["structuredContent"] = self.structured
        if self.error is not None:
            parts["error"] = self.error.to_json()
        parts["meta"] = dict(self.meta)
        return parts

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> ToolResult:
        """The reverse of `to_json`. Raises `ValueError` for an outcome that this version does not know."""
        error = value.get("error")
        return cls(
            outcome=Outcome(value["outcome"]),
            content=tuple(value.get("content") or ()),
            structured=value.get("structuredContent"),
            error=CallError.from_json(error) if error else None,
            meta=dict(value.get("meta") or {}),
        )

    def to_mcp(self) -> dict[str, Any]:
        """A `CallToolResult` of 2026-07-28; outcome and error are in `_meta`, for the reward layer."""
        content = list(self.content)
        if not content and self.error is not None:
            content = [{"type": "text", "text": self.error.message}]
        meta: dict[str, Any] = {META_OUTCOME: str(self.outcome)}
        if self.error is not None:
            meta[META_ERROR] = self.error.to_json()
        if "requestId" in self.meta:
            meta[META_REQUEST] = self.meta["requestId"]
        result: dict[str, Any] = {"resultType": "complete", "content": content, "isError": not self.ok, "_meta": meta}
        if self.structured is not None:
            result["structuredContent"] = self.structured
        return result

    @classmethod
    def from_mcp(cls, result: Mapping[str, Any], meta: Mapping[str, Any] | None = None) -> ToolResult:
        """From a `CallToolResult` of any revision. Without an outcome in `_meta`, `isError` decides."""
        noted = result.get("_meta") or {}
        outcome = Outcome.TOOL_ERROR if result.get("isError") else Outcome.OK
        if META_OUTCOME in noted:
            outcome = Outcome(noted[META_OUTCOME])
        error = noted.get(META_ERROR)
        return cls(
            outcome=outcome,
            content=tuple(result.get("content") or ()),
            structured=result.get("structuredContent"),
            error=CallError.from_json(error) if error else None,
            meta=dict(meta or {}),
        )
