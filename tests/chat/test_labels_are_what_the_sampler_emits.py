"""The invariant of `pinnace.chat`, against a simulated server that knows nothing of our renderer.

The server: transformers' own `apply_chat_template` for the prompt; the model then writes the text that its family
writes (spelled out by hand in conftest), up to its end token.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pinnace.chat import IGNORED, Conversation, Message, Renderer, ToolCall
from transformers import PreTrainedTokenizerFast

TOOL = {
    "type": "function",
    "function": {
        "name": "search",
        "description": "Searches.",
        "parameters": {"type": "object", "properties": {"q": {}}},
    },
}
text = st.text(st.sampled_from(list('ab ABé你🦊0129.,:{}"\\/\n\t-_')), max_size=24)
spoken = text.filter(str.strip)
arguments = st.dictionaries(
    st.sampled_from(["q", "näme", "n"]), st.one_of(text, st.integers(-9, 999), st.booleans()), max_size=2
)


@st.composite
def conversations(draw: st.DrawFn, family: Any) -> Conversation:
    messages = []
    tools = family.tools and draw(st.booleans())
    if family.system and draw(st.booleans()):
        messages.append(Message("system", draw(spoken)))
    for _ in range(draw(st.integers(1, 3))):
        messages.append(Message("user", draw(spoken)))
        for _ in range(draw(st.integers(0, 2)) if tools else 0):
            calls = draw(st.lists(st.builds(ToolCall, st.just("search"), arguments), min_size=1, max_size=2))
            messages.append(assistant(draw, family, draw(st.one_of(st.just(""), spoken)), tuple(calls)))
            messages += [Message("tool", draw(spoken)) for _ in calls]
        messages.append(assistant(draw, family, draw(spoken), ()))
    return Conversation(tuple(messages), (TOOL,) if tools else ())


def assistant(draw: st.DrawFn, family: Any, content: str, calls: tuple[ToolCall, ...]) -> Message:
    reasoning = draw(st.one_of(st.none(), spoken)) if family.reasoning else None
    return Message("assistant", content, reasoning, calls)


def server_prompt(tokenizer: PreTrainedTokenizerFast, conversation: Conversation, index: int) -> list[int]:
    thinks = bool(conversation.messages[index].reasoning)
    return tokenizer.apply_chat_template(
        [message.for_template() for message in conversation.messages[:index]],
        tools=list(conversation.tools) or None,
        add_generation_prompt=True,
        return_dict=False,
        **({} if thinks else {"enable_thinking": False}),
    )


def test_every_trained_token_is_one_that_the_sampler_would_emit_and_no_other(
    family: Any, renderer: Callable[[str], Renderer], folder: Callable[[str], Path]
) -> None:
    name = family.name
    ours = renderer(name)
    theirs = PreTrainedTokenizerFast.from_pretrained(folder(name))

    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
    @given(conversations(family))
    def check(conversation: Conversation) -> None:
        expected = {}
        for index in conversation.turns:
            emitted = theirs.encode(family.emission(conversation.messages[index]), add_special_tokens=False)
            expected[index] = (server_prompt(theirs, conversation, index), emitted)
        assert {turn.index: (turn.prompt, turn.emission) for turn in ours.turns(conversation)} == expected

        trained = []
        for sample in ours.samples(conversation):
            assert len(sample.input_ids) == len(sample.labels)
            mask = [False] * len(sample.labels)
            for index in sample.turns:
                prompt, emitted = expected[index]
                end = len(prompt) + len(emitted)
                assert sample.input_ids[:end] == prompt + emitted
                mask[len(prompt) : end] = [True] * len(emitted)
            assert [label != IGNORED for label in sample.labels] == mask
            assert all(
                not on or label == token for on, label, token in zip(mask, sample.labels, sample.input_ids, strict=True)
            )
            trained += sample.turns
        assert trained == conversation.turns

    check()


@pytest.mark.parametrize("name", ["qwen3-instruct", "tiny", "llama3"])
def test_a_template_that_keeps_history_gives_one_sample_a_conversation(
    name: str, renderer: Callable[[str], Renderer]
) -> None:
    messages = [Message("user" if turn % 2 == 0 else "assistant", f"text {turn}") for turn in range(10)]
    (sample,) = renderer(name).samples(Conversation(tuple(messages)))
    assert sample.turns == (1, 3, 5, 7, 9)


def test_a_template_that_drops_old_reasoning_starts_a_new_sample_with_the_history_as_it_will_be_served(
    renderer: Callable[[str], Renderer],
) -> None:
    chat = Conversation(
        (
            Message("user", "a"),
            Message("assistant", "b", "first thought"),
            Message("user", "c"),
            Message("assistant", "d", "second thought"),
        )
    )
    first, second = renderer("qwen3").samples(chat)
    decode = renderer("qwen3").tokenizer.decode
    assert "first thought" in decode(first.input_ids)
    assert "first thought" not in decode(second.input_ids)
    assert (
        decode([label for label in second.labels if label != IGNORED])
        == "<think>\nsecond thought\n</think>\n\nd<|im_end|>"
    )


def test_last_turn_loss_trains_only_the_last_turn(renderer: Callable[[str], Renderer]) -> None:
    chat = Conversation(
        (Message("user", "a"), Message("assistant", "b"), Message("user", "c"), Message("assistant", "d"))
    )
    (sample,) = renderer("tiny").samples(chat, last_turn_only=True)
    decode = renderer("tiny").tokenizer.decode
    assert decode([label for label in sample.labels if label != IGNORED]) == "d<|im_end|>"
    assert "b<|im_end|>" in decode(sample.input_ids)


def test_the_newline_after_the_end_token_and_the_empty_thought_of_the_prompt_are_not_trained(
    renderer: Callable[[str], Renderer],
) -> None:
    (sample,) = renderer("qwen3").samples(Conversation((Message("user", "a"), Message("assistant", "b"))))
    decode = renderer("qwen3").tokenizer.decode
    assert decode([label for label in sample.labels if label != IGNORED]) == "b<|im_end|>"
    assert decode(sample.input_ids).endswith("<|im_start|>assistant\n<think>\n\n</think>\n\nb<|im_end|>")
