"""A model's tokenizer, chat template and end tokens, read from its Hugging Face folder without torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from .template import ChatTemplate

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "config.json",
    "generation_config.json",
)


class TokenizerError(ValueError):
    """The folder has no usable tokenizer; the message says which file and what to do."""


@dataclass(frozen=True)
class ChatTokenizer:
    """Text to ids and back, plus what ends a turn.

    `stop_ids` are the tokens at which the model's own generation config stops a sampler. `splits_at_stop` says that
    text may be cut after an end token and encoded in pieces (true for byte-level tokenizers such as Qwen's).
    """

    tokenizer: Tokenizer
    template: ChatTemplate
    stop_ids: tuple[int, ...]
    pad_id: int

    @classmethod
    def from_directory(cls, directory: Path, *, chat_template: str | None = None) -> ChatTokenizer:
        """Reads a Hugging Face model folder; `chat_template` replaces the model's own. Raises `TokenizerError`."""
        path = directory / "tokenizer.json"
        if not path.is_file():
            raise TokenizerError(
                "the model has no tokenizer.json: save it once with transformers "
                "(AutoTokenizer.from_pretrained(…).save_pretrained(…)) and upload the folder again"
            )
        try:
            tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # tokenizers raises bare Exception for every kind of broken file
            raise TokenizerError(f"tokenizer.json cannot be read: {error}") from error
        config = _read_json(directory / "tokenizer_config.json")
        special = _special_tokens({**_read_json(directory / "special_tokens_map.json"), **config})
        source = chat_template or _template_source(directory, config)
        stop_ids = _stop_ids(directory, tokenizer, special.get("eos_token"))
        pad = tokenizer.token_to_id(special["pad_token"]) if "pad_token" in special else None
        return cls(tokenizer, ChatTemplate(source, special), stop_ids, stop_ids[0] if pad is None else pad)

    @property
    def stop_tokens(self) -> tuple[str, ...]:
        return tuple(str(self.tokenizer.id_to_token(token)) for token in self.stop_ids)

    @property
    def splits_at_stop(self) -> bool:
        def splits(stop: str, tail: str) -> bool:
            return self.encode(f"a{stop}{tail}") == self.encode(f"a{stop}") + self.encode(tail)

        return all(splits(stop, tail) for stop in self.stop_tokens for tail in ("b", " b", "\nb", "\n\nb"))

    def encode(self, text: str) -> list[int]:
        """Ids of `text`; special tokens in it are recognised and none is added."""
        return list(self.tokenizer.encode(text, add_special_tokens=False).ids)

    def decode(self, ids: Sequence[int]) -> str:
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=False))

    @property
    def digest(self) -> str:
        """SHA-256 of the vocabulary and rules, to tell whether two models share a tokenizer."""
        return hashlib.sha256(self.tokenizer.to_str().encode()).hexdigest()


def _template_source(directory: Path, config: dict[str, Any]) -> str:
    path = directory / "chat_template.jinja"
    if path.is_file():
        return path.read_text()
    source = config.get("chat_template")
    if isinstance(source, list):  # several named templates; servers take the default one
        named = {entry["name"]: entry["template"] for entry in source}
        source = named.get("default")
    if not isinstance(source, str):
        raise TokenizerError(
            "the model has no chat template (neither chat_template.jinja nor `chat_template` in "
            "tokenizer_config.json): set spec.data.chatTemplate"
        )
    return source


def _stop_ids(directory: Path, tokenizer: Tokenizer, eos_token: str | None) -> tuple[int, ...]:
    ids: list[int] = []
    for name in ("generation_config.json", "config.json"):
        eos = _read_json(directory / name).get("eos_token_id")
        ids += eos if isinstance(eos, list) else [eos] if eos is not None else []
    if eos_token is not None and (eos_id := tokenizer.token_to_id(eos_token)) is not None:
        ids.append(eos_id)
    known = tuple(dict.fromkeys(token for token in ids if tokenizer.id_to_token(token) is not None))
    if not known:
        raise TokenizerError("the model names no end token: set eos_token_id in generation_config.json")
    return known


def _special_tokens(config: dict[str, Any]) -> dict[str, str]:
    tokens = {}
    for name, value in config.items():
        text = value.get("content") if isinstance(value, dict) else value
        if name.endswith("_token") and isinstance(text, str):
            tokens[name] = text
    return tokens


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text())
    except ValueError as error:
        raise TokenizerError(f"{path.name} is not valid JSON: {error}") from error
    return content if isinstance(content, dict) else {}
