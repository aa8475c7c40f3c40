"""What the model wrote, as a message: the inverse of rendering for the Qwen/Hermes format.

Format: optional `<think>…</think>`, then text, then any number of
`<tool_call>{"name": …, "arguments": {…}}</tool_call>`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass

from .messages import Message, ToolCall

_CALL = re.compile(r"<tool_call>(.*?)(?:</tool_call>|\Z)", re.DOTALL)


@dataclass(frozen=True)
class ParsedTurn:
    """The message, and what in the text was malformed. Malformed calls stay in `content`, where a person sees them."""

    message: Message
    problems: tuple[str, ...] = ()


def parse_turn(text: str, *, stop_tokens: Iterable[str] = ("<|im_end|>", "<|endoftext|>")) -> ParsedTurn:
    """Reads one emission. The opening `<think>` may be missing: some templates put it into the prompt."""
    for stop in stop_tokens:
        text = text.removesuffix(stop)
    problems: list[str] = []
    reasoning, body = _reasoning(text, problems)
    calls: list[ToolCall] = []
    content: list[str] = []
    position = 0
    for match in _CALL.finditer(body):
        content.append(body[position : match.start()])
        position = match.end()
        try:
            calls.append(_call(match))
        except ValueError as error:
            problems.append(f"tool call {len(calls) + len(problems)}: {error}")
            content.append(match.group(0))
    content.append(body[position:])
    message = Message("assistant", "".join(content).strip("\n"), reasoning, tuple(calls))
    return ParsedTurn(message, tuple(problems))


def _reasoning(text: str, problems: list[str]) -> tuple[str | None, str]:
    head, closed, body = text.partition("</think>")
    if closed:
        return head.strip().removeprefix("<think>").strip("\n") or None, body.lstrip("\n")
    if text.lstrip().startswith("<think>"):
        problems.append("the reasoning does not end (no </think>)")
        return text.lstrip().removeprefix("<think>").strip("\n"), ""
    return None, text


def _call(match: re.Match[str]) -> ToolCall:
    if not match.group(0).endswith("</tool_call>"):
        raise ValueError("no </tool_call>")
    call = json.loads(match.group(1))
    if not (isinstance(call, dict) and isinstance(call.get("name"), str) and call["name"]):
        raise ValueError("expected an object with a name")
    arguments = call.get("arguments", {})
    if isinstance(arguments, str):
        arguments = json.loads(arguments)
    if not isinstance(arguments, dict):
        raise ValueError("arguments must be an object")  # noqa: TRY004 - bad text, not a bad caller
    return ToolCall(call["name"], arguments)
