"""OpenAI's Responses: items to messages, answers to items and events."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pinnace.chat import Conversation, Message

from .chat_completions import conversation_of, message_body
from .refusal import Refused
from .session import Answer

UNDERSTOOD = {
    "model", "input", "instructions", "tools", "tool_choice", "stream", "max_output_tokens", "previous_response_id",
}  # fmt: skip


def request_to_conversation(request: Mapping[str, Any], earlier: Conversation | None) -> Conversation:
    """Raises `Refused` naming the item at fault. `earlier` is what `previous_response_id` stands for."""
    messages: list[dict[str, Any]] = []
    if request.get("instructions"):
        messages.append({"role": "system", "content": request["instructions"]})
    if earlier is not None:
        messages += [_as_request(message) for message in earlier.messages if message.role != "system" or not messages]
    given = request.get("input")
    for position, item in enumerate([{"role": "user", "content": given}] if isinstance(given, str) else given or []):
        _add(messages, item, f"input[{position}]")
    tools = [_tool(tool, f"tools[{position}]") for position, tool in enumerate(request.get("tools") or [])]
    return conversation_of({"messages": messages, "tools": tools, "tool_choice": request.get("tool_choice")})


def _add(messages: list[dict[str, Any]], item: Mapping[str, Any], where: str) -> None:
    kind = item.get("type", "message")
    if kind == "message":
        content = item.get("content")
        parts = content if isinstance(content, list) else [{"type": "text", "text": content}]
        text = "".join(_text(part, f"{where}.content") for part in parts)
        if item.get("role") == "assistant":
            _assistant(messages)["content"] += text
        else:
            messages.append({"role": item.get("role"), "content": text})
    elif kind == "reasoning":
        parts = item.get("content") or item.get("summary") or []
        _assistant(messages)["reasoning_content"] = "".join(_text(part, where) for part in parts)
    elif kind == "function_call":
        function = {"name": item.get("name"), "arguments": item.get("arguments")}
        _assistant(messages).setdefault("tool_calls", []).append({"id": item.get("call_id"), "function": function})
    elif kind == "function_call_output":
        output = item.get("output")
        text = output if isinstance(output, str) else "".join(_text(part, f"{where}.output") for part in output or [])
        messages.append({"role": "tool", "tool_call_id": item.get("call_id"), "content": text})
    else:
        raise Refused(501, f"{where}: items of type {kind!r} are not offered: send messages and function calls",
                      code="unsupported_item", parameter="input")  # fmt: skip


def _assistant(messages: list[dict[str, Any]]) -> dict[str, Any]:
    """The assistant message that an item belongs to: reasoning, text and calls of one turn come as separate items."""
    if not messages or messages[-1]["role"] != "assistant":
        messages.append({"role": "assistant", "content": ""})
    return messages[-1]


def _text(part: object, where: str) -> str:
    text = part.get("text") if isinstance(part, Mapping) else part
    if not isinstance(text, str):
        raise Refused(400, f"{where}: only text can be trained on", code="invalid_content", parameter="input")
    return text


def _tool(tool: Mapping[str, Any], where: str) -> dict[str, Any]:
    if tool.get("type") != "function":
        kind = tool.get("type")
        raise Refused(501, f"{where}: tools of type {kind!r} are not offered: give the agent a function tool",
                      code="unsupported_tool", parameter="tools")  # fmt: skip
    kept = {key: tool[key] for key in ("name", "description", "parameters") if tool.get(key) is not None}
    return {"type": "function", "function": kept}


def _as_request(message: Message) -> dict[str, Any]:
    if message.role == "assistant":
        return message_body(message)
    body = {"role": message.role, "content": message.content}
    return body | ({"tool_call_id": message.tool_call_id} if message.tool_call_id else {})


def _items(answer: Answer) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = []
    message = answer.message
    if message.reasoning is not None:
        content = [{"type": "reasoning_text", "text": message.reasoning}]
        items.append({"type": "reasoning", "id": f"rs_{answer.id}", "summary": [], "content": content})
    if message.content or not message.tool_calls:
        part = {"type": "output_text", "text": message.content, "annotations": [], "logprobs": []}
        items.append({"type": "message", "id": f"msg_{answer.id}", "role": "assistant", "status": "completed",
                      "content": [part]})  # fmt: skip
    for call in message.tool_calls:
        arguments = json.dumps(dict(call.arguments), ensure_ascii=False)
        items.append({"type": "function_call", "id": f"fc_{call.id}", "call_id": call.id, "name": call.name,
                      "arguments": arguments, "status": "completed"})  # fmt: skip
    return items


def body(answer: Answer, model: str, request: Mapping[str, Any]) -> dict[str, Any]:
    """The reply to a request that does not stream."""
    cut = answer.finish == "length"
    return {
        "id": f"resp_{answer.id}", "object": "response", "created_at": int(time.time()), "model": model,
        "status": "incomplete" if cut else "completed", "error": None,
        "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
        "output": _items(answer), "instructions": request.get("instructions"), "metadata": {},
        "parallel_tool_calls": True, "tool_choice": request.get("tool_choice") or "auto",
        "tools": request.get("tools") or [], "temperature": None, "top_p": None,
        "previous_response_id": request.get("previous_response_id"),
        "usage": {
            "input_tokens": answer.prompt_tokens, "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": answer.output_tokens, "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": answer.prompt_tokens + answer.output_tokens,
        },
    }  # fmt: skip


def events(whole: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The reply as a stream of events, made of the finished body."""
    unfinished = {**whole, "status": "in_progress", "output": [], "usage": None, "incomplete_details": None}
    made: list[dict[str, Any]] = [
        {"type": f"response.{name}", "response": unfinished} for name in ("created", "in_progress")
    ]
    for index, item in enumerate(whole["output"]):
        made.append({"type": "response.output_item.added", "output_index": index, "item": _begun(item)})
        made += [{"output_index": index, "item_id": item["id"], **event} for event in _item_events(item)]
        made.append({"type": "response.output_item.done", "output_index": index, "item": item})
    made.append({"type": f"response.{whole['status']}", "response": whole})
    return ({**event, "sequence_number": number} for number, event in enumerate(made))


def _begun(item: Mapping[str, Any]) -> dict[str, Any]:
    empty: dict[str, Any] = {"arguments": ""} if item["type"] == "function_call" else {"content": []}
    return {**item, **empty, **({"status": "in_progress"} if "status" in item else {})}


def _item_events(item: Mapping[str, Any]) -> Sequence[dict[str, Any]]:
    if item["type"] == "function_call":
        name = "response.function_call_arguments"
        arguments = item["arguments"]
        return [{"type": f"{name}.delta", "delta": arguments},
                {"type": f"{name}.done", "arguments": arguments, "name": item["name"]}]  # fmt: skip
    (part,) = item["content"]
    at = {"content_index": 0}
    name = "response.reasoning_text" if item["type"] == "reasoning" else "response.output_text"
    more: dict[str, Any] = {} if item["type"] == "reasoning" else {"logprobs": []}
    return [
        {"type": "response.content_part.added", "part": {**part, "text": ""}, **at},
        {"type": f"{name}.delta", "delta": part["text"], **at, **more},
        {"type": f"{name}.done", "text": part["text"], **at, **more},
        {"type": "response.content_part.done", "part": part, **at},
    ]
