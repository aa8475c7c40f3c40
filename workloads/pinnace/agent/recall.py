"""The tool by which the model gets back what left its view. It lives in the loop: the log has every result."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .steps import Story
from .tools import INVALID_ARGUMENTS, OK
from .view import RECALL

_RECALLED = 6_000
RECALL_SCHEMA: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": RECALL,
        "description": "Shows again a tool result that is not (or not fully) in view.",
        "parameters": {
            "type": "object",
            "properties": {
                "id": {"type": "string", "description": "The result's id."},
                "start": {"type": "integer", "description": "First character to show; 0 by default."},
            },
            "required": ["id"],
        },
    },
}


def recall(arguments: Mapping[str, Any], story: Story) -> tuple[str, str]:
    """Outcome and text of a call: a part of a raw result, however it was refined, stubbed or folded."""
    wanted, start = str(arguments.get("id", "")), arguments.get("start", 0)
    reply = story.results.get(wanted)
    if reply is None:
        return INVALID_ARGUMENTS, f"There is no result {wanted!r}."
    if not isinstance(start, int) or not 0 <= start < max(1, len(reply.text)):
        return INVALID_ARGUMENTS, f"`start` must be a number from 0 to {len(reply.text) - 1}."
    part = reply.text[start : start + _RECALLED]
    rest = len(reply.text) - start - len(part)
    more = f"\n[{rest} characters follow: {RECALL}(id={wanted!r}, start={start + len(part)})]" if rest else ""
    return OK, part + more
