"""Model output back to messages, and templates that cannot be trained on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pinnace.chat import (
    ChatTokenizer,
    Conversation,
    Message,
    Renderer,
    RenderError,
    TokenizerError,
    ToolCall,
    parse_conversation,
    parse_turn,
)

DEEPSEEK_STOP = "<\uff5cend\u2581of\u2581sentence\uff5c>"
TEMPLATES = Path(__file__).parent / "templates"
plain = st.text(st.sampled_from(list("ab Aé🦊019.,:{}\"'\n")), min_size=1, max_size=30).map(str.strip).filter(bool)
calls = st.builds(ToolCall, st.just("add"), st.dictionaries(st.sampled_from("abc"), st.one_of(plain, st.integers())))


@given(reasoning=st.none() | plain, content=st.just("") | plain, tool_calls=st.lists(calls, max_size=3))
def test_what_the_template_writes_for_a_message_is_parsed_back_to_that_message(
    reasoning: str | None, content: str, tool_calls: list[ToolCall]
) -> None:
    message = Message("assistant", content, reasoning, tuple(tool_calls))
    if not (content or tool_calls or reasoning):
        return
    _, emission = shared_renderer().texts(Conversation((Message("user", "u"), message), (tool("add"),)), 1)
    parsed = parse_turn(emission)
    assert (parsed.message, parsed.problems) == (message, ())


_renderers: list[Renderer] = []


@pytest.fixture(autouse=True)
def _share(renderer: Callable[[str], Renderer]) -> None:
    _renderers[:] = [renderer("tiny")]


def shared_renderer() -> Renderer:
    return _renderers[0]


def tool(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": {"type": "object", "properties": {}}}}


@pytest.mark.parametrize(
    ("text", "content", "problem"),
    [
        ("<tool_call>\n{broken</tool_call>", "<tool_call>\n{broken</tool_call>", "tool call 0"),
        ('<tool_call>{"name": "f", "arguments": {}}', '<tool_call>{"name": "f", "arguments": {}}', "no </tool_call>"),
        ('<tool_call>["f"]</tool_call>', '<tool_call>["f"]</tool_call>', "object with a name"),
        ('<tool_call>{"name": ""}</tool_call>', '<tool_call>{"name": ""}</tool_call>', "object with a name"),
        ('<tool_call>{"name": "f", "arguments": 3}</tool_call>', None, "arguments must be an object"),
        ("<think>\nand then", "", "does not end"),
    ],
)
def test_malformed_output_stays_visible_and_is_reported(text: str, content: str | None, problem: str) -> None:
    parsed = parse_turn(text)
    assert parsed.message.tool_calls == ()
    assert parsed.message.content == (text if content is None else content)
    assert problem in parsed.problems[0]


def test_reasoning_whose_opening_tag_was_in_the_prompt_is_found() -> None:
    assert parse_turn("first this\n</think>\n\nthen that<|im_end|>").message == Message(
        "assistant", "then that", "first this"
    )


TOOLED = Conversation(
    (
        Message("user", "u"),
        Message("assistant", "", None, (ToolCall("add", {"a": 1}),)),
        Message("tool", "2"),
        Message("assistant", "x"),
    ),
    (tool("add"),),
)


def chat(*lines: str) -> Conversation:
    pairs = [line.split(": ") for line in lines]
    return Conversation(tuple(Message(role, content) for role, content in pairs))  # type: ignore[arg-type] # roles are given


@pytest.mark.parametrize(
    ("family", "conversation", "message"),
    [
        ("llama3", Conversation((Message("user", "u"), Message("assistant", "a", "thought"))), "reasoning_content"),
        ("llama3", TOOLED, r"tool_calls|tools"),
        ("llama3", replace(TOOLED, messages=(Message("user", "u"), Message("assistant", "a"))), "does not show 'add'"),
        ("phi3", chat("user: u", "assistant: b", "tool: lost", "assistant: a"), "role 'tool'"),
        ("gemma", chat("system: s", "user: u", "assistant: a"), "System role not supported"),
        ("gemma", chat("user: u", "user: u", "assistant: a"), "must alternate"),
        ("tiny", Conversation((Message("user", "u"), Message("assistant", "a<|im_end|>b"))), "contains the end token"),
    ],
)  # fmt: skip
def test_what_a_template_would_lose_is_refused_and_named(
    renderer: Callable[[str], Renderer], family: str, conversation: Conversation, message: str
) -> None:
    with pytest.raises(RenderError, match=message):
        renderer(family).samples(conversation)


def with_template(tiny: Path, folder: Path, template: str, **generation: Any) -> Renderer:
    from tokenizers import AddedToken, Tokenizer

    tokenizer = Tokenizer.from_file(str(tiny / "tokenizer.json"))
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in generation["stop"]])
    tokenizer.save(str(folder / "tokenizer.json"))
    ids = [tokenizer.token_to_id(token) for token in generation["stop"]]
    (folder / "generation_config.json").write_text(f'{{"eos_token_id": {ids}}}')
    return Renderer(ChatTokenizer.from_directory(folder, chat_template=(TEMPLATES / template).read_text()))


def test_a_turn_that_ends_with_the_next_turns_opening_token_trains_that_token(
    folder: Callable[[str], Path], tmp_path: Path
) -> None:
    glm = with_template(folder("tiny"), tmp_path, "glm4moe.jinja", stop=("<|user|>", "<|observation|>"))
    turns = glm.turns(TOOLED)
    assert glm.tokenizer.decode(turns[0].emission).endswith("<|observation|>")
    assert glm.tokenizer.decode(turns[1].emission).endswith("x<|user|>")


def test_a_template_that_strips_what_the_model_wrote_is_refused(folder: Callable[[str], Path], tmp_path: Path) -> None:
    r1 = with_template(folder("tiny"), tmp_path, "deepseek_r1_distill.jinja", stop=(DEEPSEEK_STOP,))
    with pytest.raises(RenderError, match=r"data\.chatTemplate"):
        r1.samples(Conversation((Message("user", "u"), Message("assistant", "a", "thought"))))


@pytest.mark.parametrize(
    ("remove", "message"),
    [
        ("tokenizer.json", "no tokenizer.json"),
        ("chat_template.jinja", r"data\.chatTemplate"),
        ("eos", "names no end token"),
    ],
)
def test_an_incomplete_tokenizer_is_refused_with_the_remedy(
    folder: Callable[[str], Path], tmp_path: Path, remove: str, message: str
) -> None:
    for path in folder("tiny").iterdir():
        content = path.read_text() if path.suffix in {".json", ".jinja"} else None
        if content is not None and path.name != remove:
            (tmp_path / path.name).write_text("{}" if remove == "eos" and "config" in path.name else content)
    with pytest.raises(TokenizerError, match=message):
        ChatTokenizer.from_directory(tmp_path)


def test_openai_messages_with_parts_json_arguments_and_developer_role_are_normalised() -> None:
    call = {"id": "c", "function": {"name": "add", "arguments": '{"a": 1}'}}
    conversation = parse_conversation(
        {
            "messages": [
                {"role": "developer", "content": "be brief"},
                {"role": "user", "content": [{"type": "text", "text": "1"}, {"type": "text", "text": "+1"}]},
                {"role": "assistant", "content": None, "tool_calls": [call]},
                {"role": "tool", "tool_call_id": "c", "content": "2"},
                {"role": "assistant", "content": "2", "reasoning": "easy"},
            ],
            "tools": [{"name": "add", "parameters": {}}],
        }
    )  # fmt: skip
    roles = [message.role for message in conversation.messages]
    assert roles == ["system", "user", "assistant", "tool", "assistant"]
    assert conversation.messages[1].content == "1+1"
    assert conversation.messages[2].tool_calls == (ToolCall("add", {"a": 1}, "c"),)
    assert conversation.messages[4].reasoning == "easy"
    assert conversation.tools[0]["function"]["name"] == "add"
