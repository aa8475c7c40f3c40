"""Quotes that a second model claims, looked up in the text they are claimed to be from."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

_SPACE = re.compile(r"\s+")
_FENCE = re.compile(r"```(?:json)?\s*(.*?)```", re.DOTALL)


@dataclass(frozen=True)
class Span:
    """Characters [start, end) of the raw text."""

    start: int
    end: int


def locate(quote: str, text: str) -> Span | None:
    """Where `quote` stands in `text`, letter by letter but for the kind of white space; None: nowhere."""
    quote = quote.strip().strip("…").removesuffix("...").strip()
    if not quote:
        return None
    if (start := text.find(quote)) >= 0:
        return Span(start, start + len(quote))
    pattern = r"\s+".join(re.escape(word) for word in _SPACE.split(quote))
    match = re.search(pattern, text)
    return Span(*match.span()) if match else None


def read_object(text: str) -> dict[str, Any]:
    """The JSON object in a model's answer, with or without a code fence and thoughts. Raises `ValueError`."""
    text = text.rpartition("</think>")[2]
    fenced = _FENCE.search(text)
    candidate = fenced.group(1) if fenced else text[text.find("{") : text.rfind("}") + 1]
    value = json.loads(candidate)
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")  # noqa: TRY004 - bad text, not a bad caller
    return value
