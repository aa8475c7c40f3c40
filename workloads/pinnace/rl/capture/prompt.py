"""Messages to prompt ids, with the model's own tokens wherever it wrote a message itself.

A template renders text, and text has more than one spelling in tokens. So where a client sends back a message that the
model wrote in this session, the ids that were sampled stand in the prompt, not ids made from their text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from pinnace.chat import ChatTokenizer, Conversation


@dataclass(frozen=True)
class Exchange:
    """A conversation that ends with the model's answer, and its ids: the prompt's and the sampled ones."""

    conversation: Conversation
    prompt_text: str
    ids: tuple[int, ...]


class PromptWriter:
    """Writes prompts for one model."""

    def __init__(self, tokenizer: ChatTokenizer) -> None:
        self._tokenizer = tokenizer
        self._substitutes = tokenizer.splits_at_stop

    def write(self, conversation: Conversation, known: Sequence[Exchange]) -> tuple[str, tuple[int, ...]]:
        """The prompt's text as the template renders it, and its ids. Raises `TemplateError`."""
        for exchange in sorted(known, key=lambda one: -len(one.conversation.messages)) if self._substitutes else ():
            length = len(exchange.conversation.messages)
            if replace(conversation, messages=conversation.messages[:length]) != exchange.conversation:
                continue
            # Equal calls may list their arguments in another order: the history is what the model wrote.
            messages = exchange.conversation.messages + conversation.messages[length:]
            text = self._render(replace(conversation, messages=messages), generate=True)
            head = self._up_to_stop(self._render(exchange.conversation, generate=False))
            if head and text.startswith(head) and head.startswith(exchange.prompt_text):
                cut_short = exchange.ids[-1] not in self._tokenizer.stop_ids
                missing = self._stop_at_end(head) if cut_short else ""
                return text, (*exchange.ids, *self._tokenizer.encode(missing + text[len(head) :]))
        text = self._render(conversation, generate=True)
        return text, tuple(self._tokenizer.encode(text))

    def _up_to_stop(self, text: str) -> str:
        """The text that an exchange's ids stand for: a template may add a newline after the last stop token."""
        ends = [at + len(stop) for stop in self._tokenizer.stop_tokens if (at := text.rfind(stop)) >= 0]
        return text[: max(ends, default=0)]

    def _stop_at_end(self, head: str) -> str:
        return next(stop for stop in self._tokenizer.stop_tokens if head.endswith(stop))

    def _render(self, conversation: Conversation, *, generate: bool) -> str:
        messages = [message.for_template() for message in conversation.messages]
        return self._tokenizer.template.render(messages, tools=conversation.tools, add_generation_prompt=generate)
