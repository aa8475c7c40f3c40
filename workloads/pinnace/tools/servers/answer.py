"""How our servers answer: text for the model, structured content for programs, and the outcome where it is not `ok`."""

from __future__ import annotations

from typing import Any

from mcp_types import CallToolResult, TextContent

from pinnace.tools.outcome import META_ERROR, META_OUTCOME, CallError, Outcome


def answered(text: str, structured: dict[str, Any] | None = None) -> CallToolResult:
    """A call that did what it should."""
    return CallToolResult(content=[TextContent(type="text", text=text)], structured_content=structured)


def failed(outcome: Outcome, message: str) -> CallToolResult:
    """A call that did not; the message is read by the model, so it says what to do."""
    meta = {META_OUTCOME: str(outcome), META_ERROR: CallError(message).to_json()}
    return CallToolResult(content=[TextContent(type="text", text=message)], is_error=True, _meta=meta)
