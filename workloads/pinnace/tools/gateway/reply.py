"""A call, and how it ended. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pinnace.tools.gateway import wire
from pinnace.tools.gateway.auth import Caller
from pinnace.tools.gateway.replay import Run
from pinnace.tools.gateway.retry import Failure, Reach
from pinnace.tools.gateway.upstream import Emit, Message
from pinnace.tools.outcome import CallError, Outcome, ToolResult


@dataclass(slots=True)
class Call:
    """One call as it came.

    Args:
        tool: public name.
        arguments: parsed.
        params: the whole parameters of the MCP request (`_meta`, and what continues an `input_required` result).
        raw: the request's bytes, when it came as 2026-07-28 and may go on unchanged.
        rpc_id: the request's, which the response will carry.
        deadline: loop time.
        emit: takes notifications on their way to the caller.
    """

    tool: str
    arguments: dict[str, Any]
    caller: Caller
    request_id: str
    deadline: float
    params: dict[str, Any] = field(default_factory=dict)
    raw: bytes | None = None
    rpc_id: Any = 1
    trace: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    emit: Emit | None = None
    run: Run | None = None
    attempts: int = 0


@dataclass(frozen=True, slots=True)
class Reply:
    """How it ended.

    `message` is the server's response as it came, when nothing changed it; `value` its result (or a JSON-RPC `error`).
    """

    outcome: Outcome
    value: Mapping[str, Any] | None = None
    error: Mapping[str, Any] | None = None
    message: bytes | None = None
    problem: CallError | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)

    def result(self) -> ToolResult:
        """In the shape of `POST /call`."""
        if self.value is None:
            told = self.problem or CallError(str((self.error or {}).get("message", "no result")))
            return ToolResult(self.outcome, error=told, meta=self.meta)
        content = tuple(self.value.get("content") or ())
        return ToolResult(self.outcome, content, self.value.get("structuredContent"), self.problem, self.meta)

    def mcp(self) -> Mapping[str, Any]:
        """As a `CallToolResult`."""
        return self.value if self.value is not None and self.problem is None else self.result().to_mcp()


def refused(outcome: Outcome, message: str, **more: Any) -> Reply:
    return Reply(outcome, problem=CallError(message, **more))


def of_failure(failure: Failure) -> Reply:
    told = failure.message
    if failure.reach is Reach.UNKNOWN and failure.outcome is not Outcome.OVERLOADED:
        told += "; it may have run"
    return refused(failure.outcome, told, retry_after=failure.retry_after)


def of_error(message: Message) -> Reply:
    error = message.error or {}
    code = error.get("code")
    outcome = {
        wire.INVALID_PARAMS: Outcome.INVALID_ARGUMENTS,
        wire.METHOD_NOT_FOUND: Outcome.UNAVAILABLE,
    }.get(code if isinstance(code, int) else 0, Outcome.TOOL_ERROR)
    return Reply(outcome, error=error, message=message.raw, problem=CallError(str(error.get("message", ""))))


def of_result(result: ToolResult) -> Reply:
    value: dict[str, Any] | None = None
    if result.content or result.structured is not None or result.ok:
        value = {"resultType": "complete", "content": list(result.content), "isError": not result.ok}
        if result.structured is not None:
            value["structuredContent"] = result.structured
    return Reply(result.outcome, value, problem=result.error, meta=result.meta)


def is_complete(reply: Reply) -> bool:
    return reply.value is not None and reply.value.get("resultType", "complete") == "complete"
