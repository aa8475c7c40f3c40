"""OpenAI's Chat Completions: requests to conversations, answers to bodies and stream chunks."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from typing import Any

from pinnace.chat import Conversation, Message, MessageError, parse_conversation

from .refusal import Refused
from .session import Answer

UNDERSTOOD = {
    "model", "messages", "tools", "stream", "stream_options", "max_tokens", "max_completion_tokens", "tool_choice",
}  # fmt: skip


def conversation_of(request: Mapping[str, Any]) -> Conversation:
    """Raises `Refused` (400) naming the field at fault."""
    tools = [] if request.get("tool_choice") == "none" else request.get("tools") or []
    try:
        conversation = parse_conversation({"messages": request.get("messages"), "tools": tools}, for_training=False)
    except MessageError as error:
        raise Refused(400, str(error), code="invalid_messages", parameter="messages") from error
    if conversation.messages[-1].role == "assistant":
        raise Refused(
            400,
            "the last message is the assistant's, and half a turn can't be trained: end with a user or tool message",
            code="invalid_messages",
            parameter="messages",
        )
    return conversation


def message_body(message: Message) -> dict[str, Any]:
    """The message as clients read it, and send it back."""
    body: dict[str, Any] = {"role": "assistant", "content": message.content or (None if message.tool_calls else "")}
    if message.reasoning is not None:
        body["reasoning_content"] = message.reasoning
    if message.tool_calls:
        body["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": json.dumps(dict(call.arguments), ensure_ascii=False)},
            }
            for call in message.tool_calls
        ]
    return body


def body(answer: Answer, model: str) -> dict[str, Any]:
    """The reply to a request that does not stream."""
    choice = {"index": 0, "message": message_body(answer.message), "finish_reason": answer.finish, "logprobs": None}
    return {**_frame(answer, model, "chat.completion"), "choices": [choice], "usage": _usage(answer)}


def chunks(answer: Answer, model: str, *, usage: bool) -> Iterator[dict[str, Any]]:
    """The reply as a stream. It begins when the answer is complete: what is trained is what was sent, whole."""
    message = message_body(answer.message)
    calls = message.pop("tool_calls", None)
    deltas: list[dict[str, Any]] = [
        {key: value for key, value in message.items() if key != "content"} | {"content": ""}
    ]
    if message["content"]:
        deltas.append({"content": message["content"]})
    deltas += [{"tool_calls": [{"index": index, **call}]} for index, call in enumerate(calls or ())]
    frame = _frame(answer, model, "chat.completion.chunk")
    for delta in deltas:
        yield {**frame, "choices": [{"index": 0, "delta": delta, "finish_reason": None, "logprobs": None}]}
    yield {**frame, "choices": [{"index": 0, "delta": {}, "finish_reason": answer.finish, "logprobs": None}]}
    if usage:
        yield {**frame, "choices": [], "usage": _usage(answer)}


def _frame(answer: Answer, model: str, kind: str) -> dict[str, Any]:
    return {"id": f"chatcmpl-{answer.id}", "object": kind, "created": int(time.time()), "model": model}


def _usage(answer: Answer) -> dict[str, int]:
    total = answer.prompt_tokens + answer.output_tokens
    return {"prompt_tokens": answer.prompt_tokens, "completion_tokens": answer.output_tokens, "total_tokens": total}
