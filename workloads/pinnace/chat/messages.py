"""Conversations in the OpenAI chat format, checked and normalised."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

Role = Literal["system", "user", "assistant", "tool"]
_ROLES = {"system", "developer", "user", "assistant", "tool"}
_KEYS = {"role", "content", "reasoning_content", "reasoning", "tool_calls", "tool_call_id", "name", "refusal"}


class MessageError(ValueError):
    """A conversation that cannot be trained on; the message names the place (`messages[3].tool_calls[0]`)."""


@dataclass(frozen=True)
class ToolCall:
    """One call. `arguments` is the decoded JSON object, because that is what chat templates expect."""

    name: str
    arguments: Mapping[str, Any]
    id: str | None = None


@dataclass(frozen=True)
class Message:
    """One message; `reasoning` is what the model thought before `content` (OpenAI's `reasoning_content`)."""

    role: Role
    content: str = ""
    reasoning: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    name: str | None = None

    def for_template(self) -> dict[str, Any]:
        """The message as chat templates read it: keys that do not apply are absent."""
        fields: dict[str, Any] = {"role": self.role, "content": self.content}
        if self.reasoning is not None:
            fields["reasoning_content"] = self.reasoning
        if self.tool_calls:
            fields["tool_calls"] = [
                {
                    **({"id": call.id} if call.id else {}),
                    "type": "function",
                    "function": {"name": call.name, "arguments": dict(call.arguments)},
                }
                for call in self.tool_calls
            ]
        if self.tool_call_id is not None:
            fields["tool_call_id"] = self.tool_call_id
        if self.name is not None:
            fields["name"] = self.name
        return fields


@dataclass(frozen=True)
class Conversation:
    """Messages and the tools (OpenAI function schemas) the model could call."""

    messages: tuple[Message, ...]
    tools: tuple[Mapping[str, Any], ...] = ()

    @property
    def turns(self) -> list[int]:
        """Indices of the assistant's messages."""
        return [index for index, message in enumerate(self.messages) if message.role == "assistant"]


def parse_conversation(record: object, *, for_training: bool = True) -> Conversation:
    """Reads `{"messages": […], "tools": […]}`; raises `MessageError` naming the field at fault.

    `messages` and `tools` may also be JSON text (as some Parquet files keep them). Parts of type `text` are joined;
    any other part is refused, since a text model would not see it. With `for_training=False` (a prompt to a server) it
    needs no assistant message, and those that it has may be empty: models write such turns.
    """
    if not isinstance(record, Mapping):
        raise MessageError(f"expected an object with `messages`, got {_kind(record)}")
    raw_messages = _decoded(record.get("messages"), "messages")
    if not isinstance(raw_messages, Sequence) or isinstance(raw_messages, str) or not raw_messages:
        raise MessageError("`messages` must be a non-empty list")
    messages = tuple(
        _message(raw, f"messages[{index}]", may_be_empty=not for_training) for index, raw in enumerate(raw_messages)
    )
    if for_training and not any(message.role == "assistant" for message in messages):
        raise MessageError("no assistant message: there is nothing to learn from")
    _check_order(messages)
    raw_tools = _decoded(record.get("tools"), "tools") or ()
    if not isinstance(raw_tools, Sequence) or isinstance(raw_tools, str):
        raise MessageError("`tools` must be a list of function schemas")
    tools = tuple(_tool(raw, f"tools[{index}]") for index, raw in enumerate(raw_tools))
    return Conversation(messages, tools)


def _check_order(messages: tuple[Message, ...]) -> None:
    if messages[0].role in {"assistant", "tool"}:
        raise MessageError(f"messages[0]: a conversation cannot begin with role {messages[0].role!r}")
    known: set[str] = set()
    expecting = False
    for index, message in enumerate(messages):
        known |= {call.id for call in message.tool_calls if call.id}
        if message.role == "tool":
            if not expecting:
                raise MessageError(f"messages[{index}]: a tool result must follow an assistant message with tool_calls")
            if message.tool_call_id and known and message.tool_call_id not in known:
                raise MessageError(f"messages[{index}].tool_call_id {message.tool_call_id!r} answers no earlier call")
        else:
            expecting = bool(message.tool_calls)


def _message(raw: object, where: str, *, may_be_empty: bool) -> Message:
    if not isinstance(raw, Mapping):
        raise MessageError(f"{where} must be an object, got {_kind(raw)}")
    fields = {key: value for key, value in raw.items() if value is not None}
    role = fields.get("role")
    if role not in _ROLES:
        raise MessageError(f"{where}.role must be one of {', '.join(sorted(_ROLES))}, got {role!r}")
    if unknown := sorted(set(fields) - _KEYS):
        raise MessageError(f"{where}: unknown field {unknown[0]!r} (it would be lost)")
    content = _content(fields.get("content", ""), f"{where}.content")
    reasoning = fields.get("reasoning_content", fields.get("reasoning"))
    calls = _decoded(fields.get("tool_calls", ()), f"{where}.tool_calls")
    if not isinstance(calls, Sequence) or isinstance(calls, str):
        raise MessageError(f"{where}.tool_calls must be a list")
    if role != "assistant" and (calls or reasoning is not None):
        raise MessageError(f"{where}: only assistant messages have tool_calls or reasoning_content")
    if reasoning is not None and not isinstance(reasoning, str):
        raise MessageError(f"{where}.reasoning_content must be text, got {_kind(reasoning)}")
    tool_calls = tuple(_tool_call(call, f"{where}.tool_calls[{index}]") for index, call in enumerate(calls))
    if role == "assistant" and not may_be_empty and not (content.strip() or tool_calls or (reasoning or "").strip()):
        raise MessageError(f"{where}: an assistant message without content, reasoning or tool calls")
    return Message(
        role="system" if role == "developer" else cast("Role", role),
        content=content,
        reasoning=reasoning,
        tool_calls=tool_calls,
        tool_call_id=fields.get("tool_call_id"),
        name=fields.get("name"),
    )


def _content(raw: object, where: str) -> str:
    if isinstance(raw, str):
        return raw
    if not isinstance(raw, Sequence):
        raise MessageError(f"{where} must be text or a list of parts, got {_kind(raw)}")
    texts = []
    for index, part in enumerate(raw):
        if isinstance(part, str):
            texts.append(part)
        elif isinstance(part, Mapping) and part.get("type") == "text" and isinstance(part.get("text"), str):
            texts.append(part["text"])
        else:
            kind = part.get("type") if isinstance(part, Mapping) else _kind(part)
            raise MessageError(f"{where}[{index}]: only text parts can be trained on, got {kind!r}")
    return "".join(texts)


def _tool_call(raw: object, where: str) -> ToolCall:
    if not isinstance(raw, Mapping):
        raise MessageError(f"{where} must be an object, got {_kind(raw)}")
    function = raw.get("function", raw)
    if not isinstance(function, Mapping):
        raise MessageError(f"{where}.function must be an object, got {_kind(function)}")
    name = function.get("name")
    if not isinstance(name, str) or not name:
        raise MessageError(f"{where}.function.name must be non-empty text")
    arguments = function.get("arguments")
    arguments = _decoded({} if arguments in (None, "") else arguments, f"{where}.function.arguments")
    if not isinstance(arguments, Mapping):
        raise MessageError(f"{where}.function.arguments must be a JSON object, got {_kind(arguments)}")
    return ToolCall(name, arguments, raw.get("id"))


def _tool(raw: object, where: str) -> Mapping[str, Any]:
    if not isinstance(raw, Mapping):
        raise MessageError(f"{where} must be an object, got {_kind(raw)}")
    function = raw.get("function", raw)
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise MessageError(f"{where}.function.name must be text")
    return raw if "function" in raw else {"type": "function", "function": dict(raw)}


def _decoded(raw: object, where: str) -> object:
    if not isinstance(raw, str):
        return raw
    try:
        return cast("object", json.loads(raw))
    except ValueError as error:
        raise MessageError(f"{where} is not valid JSON: {error}") from None


def _kind(value: object) -> str:
    return "nothing" if value is None else type(value).__name__
