"""Counting tokens with the served model's own tokenizer, once for each text."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from pinnace.chat import ChatTokenizer, TemplateError

_REMEMBERED = 1 << 16
_CHARACTERS_PER_TOKEN = 12
"""The most a text is cut to before it is encoded, for each token that is wanted: no tokenizer does much better."""


class TokenCounter(Protocol):
    """Counts for one model. Implementations may remember what they counted; the same text has the same count."""

    def text(self, text: str) -> int:
        """Tokens of a text on its own."""

    def message(self, message: Mapping[str, Any]) -> int:
        """An upper estimate of what one message adds to a prompt."""

    def head(self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]]) -> int:
        """Tokens of the prompt's beginning with the tools' schemas, and of what opens the model's turn."""

    def clip(self, text: str, tokens: int) -> tuple[int, int]:
        """Where to cut: the first `head` and the last `tail` characters together have at most `tokens` tokens.

        Returns (head, tail); (len(text), 0) if nothing must be cut.
        """


class ModelCounter:
    """`TokenCounter` by a model folder's tokenizer and chat template.

    A prompt is counted message by message: the sum is what the template would give, within a token or two a message,
    without rendering 128,000 tokens again for every turn. `prompt` counts exactly.
    """

    def __init__(self, tokenizer: ChatTokenizer) -> None:
        self._tokenizer = tokenizer
        self._counts: dict[tuple[int, int], int] = {}
        self._cuts: dict[tuple[int, int, int], tuple[int, int]] = {}

    @classmethod
    def from_directory(cls, directory: Path) -> ModelCounter:
        """From a Hugging Face model folder. Raises `pinnace.chat.TokenizerError`."""
        return cls(ChatTokenizer.from_directory(directory))

    def text(self, text: str) -> int:
        # A string remembers its hash, so that asking again costs nothing; the texts themselves are not kept.
        key = (hash(text), len(text))
        found = self._counts.get(key)
        if found is None:
            _make_room(self._counts)
            found = self._counts[key] = self._count(text)
        return found

    def message(self, message: Mapping[str, Any]) -> int:
        parts = [_plain(message.get("content"))]
        if reasoning := message.get("reasoning_content"):
            parts.append(reasoning)
        total = self._around
        for call in message.get("tool_calls") or ():
            parts += [call["function"]["name"], call["function"]["arguments"]]
            total += self._around_call
        # One token a part for what may not merge at its borders as it does inside a prompt.
        return total + sum(self.text(part) + 1 for part in parts if part)

    def head(self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]]) -> int:
        try:
            text = self._render(messages, tools)
        except TemplateError:
            # Some templates know no tools or no system message; then their server refuses them, not we.
            text = ""
        key = (hash(text), len(text))
        if text and key in self._counts:
            return self._counts[key]
        count = self.text(text) if text else self.text(json.dumps(list(tools)))
        return count + (0 if text else sum(self.message(message) for message in messages))

    def prompt(self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] = ()) -> int:
        """The exact count of a whole prompt, rendered by the model's template. Raises `TemplateError`."""
        return len(self._tokenizer.encode(self._render(messages, tools)))

    def clip(self, text: str, tokens: int) -> tuple[int, int]:
        if tokens <= 0:
            return 0, 0
        key = (hash(text), len(text), tokens)
        if (found := self._cuts.get(key)) is None:
            _make_room(self._cuts)
            found = self._cuts[key] = self._cut(text, tokens)
        return found

    def _count(self, text: str) -> int:
        # The fast way makes no offsets: a third cheaper.
        return len(self._tokenizer.tokenizer.encode_batch_fast([text], add_special_tokens=False)[0])

    def _cut(self, text: str, tokens: int) -> tuple[int, int]:
        if (
            len(text) * 4 <= tokens or self.text(text) <= tokens
        ):  # a character has at most four bytes, and so four tokens
            return len(text), 0
        head_tokens = max(1, tokens * 3 // 4)
        tail_tokens = tokens - head_tokens
        reach = tokens * _CHARACTERS_PER_TOKEN
        head = self._longest(text[:reach], head_tokens, tail=False)
        tail = self._longest(text[max(head, len(text) - reach) :], tail_tokens, tail=True) if tail_tokens else 0
        return head, tail

    def _longest(self, text: str, tokens: int, *, tail: bool) -> int:
        """The most characters at one end of `text` that have at most `tokens` tokens by themselves."""
        offsets = self._tokenizer.tokenizer.encode(text, add_special_tokens=False).offsets
        if len(offsets) <= tokens:
            return len(text)
        size = len(text) - offsets[-tokens][0] if tail else offsets[tokens - 1][1]
        while size and self.text(text[len(text) - size :] if tail else text[:size]) > tokens:
            size -= max(1, size // 50)  # an end may encode differently on its own
        return size

    def _render(self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]]) -> str:
        readable = [_for_template(message) for message in messages]
        return self._tokenizer.template.render(readable, tools=tools, add_generation_prompt=True)

    @cached_property
    def _around(self) -> int:
        """Tokens that the template puts around a message, the most of all roles."""
        words: dict[str, list[dict[str, Any]]] = {
            "user": [{"role": "user", "content": "a"}],
            "assistant": [{"role": "assistant", "content": "a", "reasoning_content": "a"}],
            "tool": [{"role": "assistant", "content": "a"}, {"role": "user", "content": "a"}],
        }
        base = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "a"}]
        most = 8
        for added in words.values():
            try:
                extra = self.prompt([*base, *added]) - self.prompt(base)
            except TemplateError:
                continue
            most = max(most, -(-extra // len(added)))
        return most

    @cached_property
    def _around_call(self) -> int:
        """Tokens that the template puts around one tool call and its result."""
        call = {"id": "c", "type": "function", "function": {"name": "a", "arguments": "{}"}}
        base: list[dict[str, Any]] = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "a"}]
        called: list[dict[str, Any]] = [base[0], {"role": "assistant", "content": "a", "tool_calls": [call]}]
        try:
            return max(8, self.prompt(called) - self.prompt(base))
        except TemplateError:
            return 16


def _make_room(memory: dict[Any, Any]) -> None:
    if len(memory) >= _REMEMBERED:
        for key in list(memory)[: _REMEMBERED // 2]:
            del memory[key]


def _plain(content: object) -> str:
    if isinstance(content, str):
        return content
    if isinstance(content, Sequence):
        return "".join(part.get("text", "") for part in content if isinstance(part, Mapping))
    return ""


def _for_template(message: Mapping[str, Any]) -> Mapping[str, Any]:
    """Templates expect decoded arguments and text."""
    readable = {**message, "content": _plain(message.get("content"))}
    if calls := message.get("tool_calls"):
        readable["tool_calls"] = [
            {**call, "function": {**call["function"], "arguments": json.loads(call["function"]["arguments"] or "{}")}}
            for call in calls
        ]
    return readable
