"""How calls and results travel: the server's own tool calling, or a protocol in the text."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from pinnace.chat import parse_turn

from .events import Call
from .model import Reply

Message = Mapping[str, Any]
Schema = Mapping[str, Any]


@dataclass(frozen=True)
class Said:
    """A reply taken apart: thoughts, text, and calls (ids are given by the loop)."""

    content: str
    reasoning: str | None
    calls: tuple[Call, ...]


class Dialect(Protocol):
    """One protocol."""

    name: str

    def request(self, messages: Sequence[Message], tools: Sequence[Schema]) -> tuple[list[Message], Sequence[Schema]]:
        """What to send: messages, and the tools for the server's own `tools` field."""

    def read(self, reply: Reply) -> Said:
        """What came back. What is malformed becomes a `Call` with a `problem`, never silence."""


class Native:
    """The server parses and renders tool calls."""

    name = "native"

    def request(self, messages: Sequence[Message], tools: Sequence[Schema]) -> tuple[list[Message], Sequence[Schema]]:
        return list(messages), tools

    def read(self, reply: Reply) -> Said:
        calls = tuple(_decoded(request.name, request.arguments) for request in reply.calls)
        content, reasoning = reply.content, reply.reasoning
        if not calls and "<tool_call>" in content:  # a server without a tool parser, or a call that it could not parse
            return _from_text(reply)
        if reasoning is None and "</think>" in content:  # a server without a reasoning parser
            parsed = parse_turn(content).message
            content, reasoning = parsed.content, parsed.reasoning
        return Said(content, reasoning, calls)


class Hermes:
    """Qwen's and Hermes' `<tool_call>{"name": …, "arguments": …}</tool_call>`, for servers without a tool parser."""

    name = "hermes"

    def request(self, messages: Sequence[Message], tools: Sequence[Schema]) -> tuple[list[Message], Sequence[Schema]]:
        sent: list[Message] = []
        for message in messages:
            role = message["role"]
            if role == "tool":
                _add_result(sent, f"<tool_response>\n{message['content']}\n</tool_response>")
            elif role == "assistant":
                sent.append({"role": "assistant", "content": self._turn(message)})
            else:
                sent.append(message)
        return _with_system(sent, self._manual(tools)) if tools else sent, ()

    def read(self, reply: Reply) -> Said:
        return _from_text(reply)

    @staticmethod
    def _turn(message: Message) -> str:
        calls = [
            f'<tool_call>\n{{"name": {json.dumps(call["function"]["name"])}, '
            f'"arguments": {call["function"]["arguments"]}}}\n</tool_call>'
            for call in message.get("tool_calls") or ()
        ]
        thoughts = f"<think>\n{reasoning}\n</think>\n\n" if (reasoning := message.get("reasoning_content")) else ""
        return thoughts + "\n".join(part for part in (message["content"], *calls) if part)

    @staticmethod
    def _manual(tools: Sequence[Schema]) -> str:
        listed = "\n".join(json.dumps(tool, ensure_ascii=False) for tool in tools)
        return (
            f"# Tools\nYou can call these functions, several in one turn if they do not depend on each other:\n"
            f"<tools>\n{listed}\n</tools>\nFor each call write\n<tool_call>\n"
            '{"name": <function name>, "arguments": <JSON object>}\n</tool_call>'
        )


class Action:
    """`Action:` and `Action Input:` lines, for models that were trained on ReAct prompts; one call a turn."""

    name = "action"
    _PATTERN = re.compile(r"^Action:[ \t]*(\S+)[ \t]*\n+Action Input:[ \t]*(.*)", re.MULTILINE | re.DOTALL)

    def request(self, messages: Sequence[Message], tools: Sequence[Schema]) -> tuple[list[Message], Sequence[Schema]]:
        sent: list[Message] = []
        for message in messages:
            if message["role"] == "tool":
                _add_result(sent, f"Observation: {message['content']}")
            elif message["role"] == "assistant":
                calls = [
                    f"Action: {call['function']['name']}\nAction Input: {call['function']['arguments']}"
                    for call in message.get("tool_calls") or ()
                ]
                sent.append({"role": "assistant", "content": "\n".join(filter(None, (message["content"], *calls)))})
            else:
                sent.append(message)
        if not tools:
            return sent, ()
        listed = "\n".join(json.dumps(tool.get("function", tool), ensure_ascii=False) for tool in tools)
        manual = (
            f"You can call these functions:\n{listed}\nTo call one, end your turn with\nAction: <function name>\n"
            "Action Input: <JSON object>\nThe next message begins with `Observation:`."
        )
        return _with_system(sent, manual), ()

    def read(self, reply: Reply) -> Said:
        parsed = parse_turn(reply.content).message
        match = self._PATTERN.search(parsed.content)
        if match is None:
            return Said(parsed.content, reply.reasoning or parsed.reasoning, ())
        arguments = match.group(2).partition("\nObservation:")[0].strip()
        arguments = arguments.removeprefix("```json").removeprefix("```").removesuffix("```").strip()
        call = _decoded(match.group(1), arguments)
        return Said(parsed.content[: match.start()].rstrip(), reply.reasoning or parsed.reasoning, (call,))


DIALECTS: dict[str, Dialect] = {each.name: each for each in (Native(), Hermes(), Action())}


def _from_text(reply: Reply) -> Said:
    parsed = parse_turn(reply.content)
    calls = [Call(id="", name=call.name, arguments=dict(call.arguments)) for call in parsed.message.tool_calls]
    malformed = [problem for problem in parsed.problems if problem.startswith("tool call")]
    calls += [Call(id="", name="", raw=parsed.message.content[:2000], problem=problem) for problem in malformed]
    return Said(parsed.message.content, reply.reasoning or parsed.message.reasoning, tuple(calls))


def _decoded(name: str, arguments: str) -> Call:
    try:
        decoded = json.loads(arguments or "{}")
    except ValueError as error:
        return Call(id="", name=name, raw=arguments[:2000], problem=f"the arguments are not valid JSON: {error}")
    if not isinstance(decoded, dict):
        return Call(id="", name=name, raw=arguments[:2000], problem="the arguments must be a JSON object")
    return Call(id="", name=name, arguments=decoded)


def _with_system(messages: list[Message], text: str) -> list[Message]:
    if messages and messages[0]["role"] == "system":
        return [{"role": "system", "content": f"{messages[0]['content']}\n\n{text}"}, *messages[1:]]
    return [{"role": "system", "content": text}, *messages]


def _add_result(messages: list[Message], text: str) -> None:
    """Results of one turn are one user message, as Qwen's own template has them."""
    if messages and isinstance(messages[-1], _Results):
        messages[-1] = _Results(role="user", content=f"{messages[-1]['content']}\n{text}")
    else:
        messages.append(_Results(role="user", content=text))


class _Results(dict[str, Any]):
    """A user message made of tool results."""
