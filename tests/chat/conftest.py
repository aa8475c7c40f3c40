"""Real chat templates with a small tokenizer that knows their special tokens."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from pinnace.chat import ChatTokenizer, Message, Renderer
from pinnace.tiny.model import write_tiny_model
from tokenizers import AddedToken, Tokenizer

TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Family:
    """One model family: its special tokens and, written by hand, what its model emits for a message."""

    name: str
    template: str
    special: tuple[str, ...]
    stop: tuple[str, ...]
    emission: Callable[[Message], str]
    tools: bool = True
    reasoning: bool = True
    system: bool = True
    strips_after_stop: bool = False


def hermes_calls(message: Message) -> str:
    calls = [
        f'<tool_call>\n{{"name": "{call.name}", "arguments": {text}}}\n</tool_call>'
        for call in message.tool_calls
        for text in [json.dumps(dict(call.arguments), ensure_ascii=False)]
    ]
    return ("\n" if message.content and calls else "") + "\n".join(calls)


def qwen3(message: Message) -> str:
    thought = f"<think>\n{message.reasoning.strip(chr(10))}\n</think>\n\n" if message.reasoning else ""
    return f"{thought}{message.content.lstrip(chr(10))}{hermes_calls(message)}<|im_end|>"


def qwen_plain(message: Message) -> str:
    return f"{message.content}{hermes_calls(message)}<|im_end|>"


def tiny(message: Message) -> str:
    thought = f"<think>\n{message.reasoning}\n</think>\n\n" if message.reasoning else ""
    return f"{thought}{message.content}{hermes_calls(message)}<|im_end|>"


CHATML = ("<|im_start|>", "<|im_end|>")
FAMILIES = {
    "qwen3": Family("qwen3", "qwen3", CHATML, ("<|im_end|>",), qwen3),
    "qwen3-instruct": Family(
        "qwen3-instruct", "qwen3_instruct_2507", CHATML, ("<|im_end|>",), qwen_plain, reasoning=False
    ),
    "qwen2.5": Family("qwen2.5", "qwen2_5", CHATML, ("<|im_end|>",), qwen_plain, reasoning=False),
    "tiny": Family("tiny", "tiny", CHATML, ("<|im_end|>",), tiny),
    "llama3": Family(
        "llama3",
        "llama3",
        ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
        ("<|eot_id|>",),
        lambda message: f"{message.content.strip()}<|eot_id|>",
        tools=False,
        reasoning=False,
    ),
    "phi3": Family(
        "phi3",
        "phi3",
        ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>"),
        ("<|end|>", "<|endoftext|>"),
        lambda message: f"{message.content}<|end|>",
        tools=False,
        reasoning=False,
        strips_after_stop=True,
    ),
    "gemma": Family(
        "gemma",
        "gemma",
        ("<start_of_turn>", "<end_of_turn>"),
        ("<end_of_turn>",),
        lambda message: f"{message.content.strip()}<end_of_turn>",
        tools=False,
        reasoning=False,
        system=False,
    ),
}


def write_family(directory: Path, family: Family) -> Path:
    """A tokenizer folder: the tiny model's vocabulary plus the family's special tokens and template."""
    write_tiny_model(directory)
    tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    tokenizer.add_special_tokens(
        [AddedToken(token, special=True, normalized=False, rstrip=family.strips_after_stop) for token in family.special]
    )
    tokenizer.save(str(directory / "tokenizer.json"))
    path = directory / "tokenizer_config.json"
    config = json.loads(path.read_text()) | {"eos_token": family.stop[-1], "bos_token": family.special[0]}
    path.write_text(json.dumps(config))
    stops = [tokenizer.token_to_id(token) for token in family.stop]
    (directory / "generation_config.json").write_text(json.dumps({"eos_token_id": stops}))
    (directory / "config.json").write_text("{}")
    if family.template != "tiny":
        (directory / "chat_template.jinja").write_text((TEMPLATES / f"{family.template}.jinja").read_text())
    return directory


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    made: dict[str, Path] = {}

    def make(name: str) -> Path:
        if name not in made:
            made[name] = write_family(tmp_path_factory.mktemp(name), FAMILIES[name])
        return made[name]

    return make


@pytest.fixture(scope="session")
def renderer(folder: Callable[[str], Path]) -> Callable[[str], Renderer]:
    made: dict[str, Renderer] = {}

    def make(name: str) -> Renderer:
        if name not in made:
            made[name] = Renderer(ChatTokenizer.from_directory(folder(name)))
        return made[name]

    return make


@pytest.fixture(params=sorted(FAMILIES))
def family(request: pytest.FixtureRequest) -> Family:
    return FAMILIES[request.param]
