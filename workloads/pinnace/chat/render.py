"""Conversations to token ids and labels.

The invariant: *labels equal exactly the tokens the sampler would have emitted*. For each assistant message the model
is asked, as a server would ask it, with `template(messages before it, add_generation_prompt)`. What it has to write is
the rest of `template(messages up to it)`, up to and including the end token. Nothing else is trained: not the header,
not the newline after the end token, not a `<think></think>` that the template puts into the prompt.

Turns share one sample while each prompt extends what came before, token by token. Where a template rewrites history
(Qwen3 drops old reasoning) the next turn starts a sample of its own with the rewritten history as context, because that
is what the model will see when it is served.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from .messages import Conversation, Message
from .template import TemplateError
from .tokenizer import ChatTokenizer

IGNORED = -100


class RenderError(ValueError):
    """The template would lose or garble part of this conversation; the message names the message and the remedy."""


@dataclass(frozen=True)
class Turn:
    """What the model is given (`prompt`) and what it writes (`emission`, with its end token), as ids."""

    index: int
    prompt: list[int]
    emission: list[int]

    @property
    def length(self) -> int:
        return len(self.prompt) + len(self.emission)


@dataclass(frozen=True)
class Sample:
    """One training sequence; `labels` has -100 wherever the model does not write. `turns` are the trained messages."""

    input_ids: list[int]
    labels: list[int]
    turns: tuple[int, ...]


class Renderer:
    """Renders conversations for one model."""

    def __init__(self, tokenizer: ChatTokenizer) -> None:
        self.tokenizer = tokenizer

    @cached_property
    def _splits(self) -> bool:
        return self.tokenizer.splits_at_stop

    def turns(self, conversation: Conversation) -> list[Turn]:
        """Every assistant turn; raises `RenderError` or `TemplateError` where the template cannot express one."""
        encode = self.tokenizer.encode
        turns: list[Turn] = []
        text, ids = "", list[int]()  # the conversation so far, which ends with an end token, and its encoding
        for index in conversation.turns:
            prompt_text, emission_text = self.texts(conversation, index)
            if text and self._splits and prompt_text.startswith(text):
                added = prompt_text[len(text) :]
                prompt, whole = ids + encode(added), ids + encode(added + emission_text)
            else:
                prompt, whole = encode(prompt_text), encode(prompt_text + emission_text)
            continuation = whole[len(prompt) :]
            # Encoded together, header and first letters may merge or lose spaces; a sampler writes what it writes.
            intact = whole[: len(prompt)] == prompt and self.tokenizer.decode(continuation) == emission_text
            emission = continuation if intact else encode(emission_text)
            turns.append(Turn(index, prompt, emission))
            text, ids = prompt_text + emission_text, whole
        return turns

    def samples(self, conversation: Conversation, *, last_turn_only: bool = False) -> list[Sample]:
        """Training sequences that together train every assistant turn (or the last one) exactly once."""
        turns = self.turns(conversation)
        return join_turns(turns[-1:] if last_turn_only else turns)

    def texts(self, conversation: Conversation, index: int) -> tuple[str, str]:
        """The prompt's and the emission's text for the assistant message at `index`."""
        # A turn without reasoning is what a hybrid model writes when its server switches thinking off.
        modes: list[dict[str, bool]] = [{}]
        if not conversation.messages[index].reasoning:
            modes.insert(0, {"enable_thinking": False})
        for mode in modes:
            prompt = self._render(conversation, index, generate=True, **mode)
            full = self._render(conversation, index + 1, **mode)
            if full.startswith(prompt):
                break
        else:
            raise RenderError(
                f"messages[{index}]: the chat template does not render the assistant's turn as a continuation of "
                "its own generation prompt, so nobody can say what it must write; set data.chatTemplate to another"
            )
        emission = self._emission(conversation, index, full, prompt, mode)
        self._check_nothing_lost(conversation, index, prompt, emission)
        return prompt, emission

    def _emission(self, conversation: Conversation, index: int, full: str, prompt: str, mode: dict[str, bool]) -> str:
        rest = full[len(prompt) :]
        stops = self.tokenizer.stop_tokens
        ends = [at + len(stop) for stop in stops if (at := rest.find(stop)) >= 0]
        if ends:
            end = min(ends)
            trailing = rest[end:]
            for stop in stops:
                trailing = trailing.replace(stop, "")
            if trailing.strip():
                raise RenderError(f"messages[{index}]: the text contains the end token {rest[:end][-20:]!r}; remove it")
            return rest[:end]
        # Some templates (GLM) end a turn with the token that opens the next one.
        following = self._render(_followed(conversation, index), index + 2, **mode)
        for stop in stops:
            if following.startswith(full + stop):
                return rest + stop
        raise RenderError(
            f"messages[{index}]: the chat template ends the assistant's turn with none of the model's end tokens "
            f"({', '.join(stops)}), so it would never learn to stop; set eos_token_id in generation_config.json"
        )

    def _check_nothing_lost(self, conversation: Conversation, index: int, prompt: str, emission: str) -> None:
        message = conversation.messages[index]
        wanted = [("content", message.content), ("reasoning_content", message.reasoning or "")]
        wanted += [("tool_calls", call.name) for call in message.tool_calls]
        for field, text in wanted:
            if text.strip() not in emission:
                raise RenderError(
                    f"messages[{index}].{field}: this model's chat template does not render it; "
                    "remove it from the data or set data.chatTemplate"
                )
        previous = max((turn for turn in conversation.turns if turn < index), default=-1)
        for position in range(previous + 1, index):
            text = conversation.messages[position].content.strip()
            if text not in prompt and json.dumps(text, ensure_ascii=False)[1:-1] not in prompt:
                raise RenderError(
                    f"messages[{position}]: this model's chat template does not render a message of role "
                    f"{conversation.messages[position].role!r} here; remove it or set data.chatTemplate"
                )
        if conversation.tools and previous < 0:
            for tool in conversation.tools:
                if tool["function"]["name"] not in prompt:
                    raise RenderError(
                        f"tools: this model's chat template does not show {tool['function']['name']!r} to the model; "
                        "set data.chatTemplate to one that supports tools"
                    )

    def _render(self, conversation: Conversation, end: int, *, generate: bool = False, **variables: bool) -> str:
        messages = [message.for_template() for message in conversation.messages[:end]]
        try:
            return self.tokenizer.template.render(
                messages, tools=conversation.tools, add_generation_prompt=generate, **variables
            )
        except TemplateError as error:
            raise RenderError(f"messages[:{end}]: {error}") from error


def join_turns(turns: Sequence[Turn]) -> list[Sample]:
    """Joins turns into samples: a turn continues the sample before it if that is a token prefix of its prompt."""
    samples: list[Sample] = []
    for turn in turns:
        last = samples[-1] if samples else None
        if last is not None and turn.prompt[: len(last.input_ids)] == last.input_ids:
            context = turn.prompt[len(last.input_ids) :]
            samples[-1] = Sample(
                [*last.input_ids, *context, *turn.emission],
                [*last.labels, *([IGNORED] * len(context)), *turn.emission],
                (*last.turns, turn.index),
            )
        else:
            labels = [*([IGNORED] * len(turn.prompt)), *turn.emission]
            samples.append(Sample([*turn.prompt, *turn.emission], labels, (turn.index,)))
    return samples


def _followed(conversation: Conversation, index: int) -> Conversation:
    following = conversation.messages[index + 1 : index + 2] or (Message("user", "…"),)
    return replace(conversation, messages=(*conversation.messages[: index + 1], *following))
