"""Refinement: a second model reads a long result with the goal in mind and quotes what bears on it.

Every quote is looked up in the raw text and kept with its offsets; what is not there is dropped and counted. If the
second model fails, the result is cut instead, and the event says so.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .events import Refined, Usage
from .evidence import Span, locate, read_object
from .model import ContextTooLong, Model, ModelError
from .policy import RefineRule
from .tokens import TokenCounter

_SHORTER = 0.7
_TRIES = 3
PROMPT = """You read tool results for an agent that looks for the answer to a question. Write down what in the result
bears on the goal; leave out the rest. Do not answer the question yourself and do not add anything from memory.

Reply with one JSON object:
{{"evidence": ["<passage copied letter by letter from the result>", …], "summary": "<what the evidence says about the
goal, or that the result says nothing about it>"}}
Copy at most twelve passages, each as short as it can be and still be understood, with names, numbers, dates and links.

[question]
{question}

[goal of this call]
{goal}

[result]
{result}"""
PROMPT_HASH = hashlib.sha256(PROMPT.encode()).hexdigest()


@dataclass(frozen=True)
class Request:
    """One result to refine; `call` is the call's id."""

    call: str
    question: str
    goal: str
    text: str


class RefineCache:
    """What was refined, by (content, goal): pages come back, within a trajectory and between attempts."""

    def __init__(self, entries: int = 4096) -> None:
        self._entries = entries
        self._kept: OrderedDict[str, Refined] = OrderedDict()

    def get(self, key: str) -> Refined | None:
        if (found := self._kept.get(key)) is not None:
            self._kept.move_to_end(key)
        return found

    def put(self, key: str, refined: Refined) -> None:
        self._kept[key] = refined
        if len(self._kept) > self._entries:
            self._kept.popitem(last=False)


def goal_of(name: str, arguments: Mapping[str, Any]) -> str:
    """What a call is for: the agent's own words, where the tool asks for them."""
    for field in ("goal", "purpose"):
        if isinstance(value := arguments.get(field), str) and value.strip():
            return value.strip()
    listed = ", ".join(f"{key}: {value}" for key, value in arguments.items())
    return f"{name}({listed})"


class Refiner:
    """Refines results by one model and one rule; its usage is metered in the events."""

    def __init__(
        self, model: Model, rule: RefineRule, counter: TokenCounter, *, cache: RefineCache | None = None
    ) -> None:
        self._model = model
        self._rule = rule
        self._counter = counter
        self._cache = cache or RefineCache()

    def applies(self, name: str, outcome: str, text: str) -> bool:
        """Whether a result is long enough, of the right tool, and not an error."""
        chosen = not self._rule.tools or name in self._rule.tools
        return outcome == "ok" and chosen and self._counter.text(text) > self._rule.over_tokens

    async def refine(self, request: Request) -> Refined:
        """Never raises for what the second model does: then `fallback` says what it was."""
        key = self._key(request)
        if (known := self._cache.get(key)) is not None:
            return known.model_copy(update={"call": request.call, "cached": True, "usage": Usage()})
        refined = await self._ask(request)
        if refined.fallback is None:
            self._cache.put(key, refined)
        return refined

    async def _ask(self, request: Request) -> Refined:
        tokens, problem, usage = self._rule.input_tokens, "", Usage()
        for _ in range(_TRIES):
            head, _ = self._counter.clip(request.text, tokens)
            prompt = PROMPT.format(question=request.question, goal=request.goal, result=request.text[:head])
            try:
                reply = await self._model.complete([{"role": "user", "content": prompt}], ())
            except ContextTooLong:
                tokens, problem = int(tokens * _SHORTER), "the result is too long for the second model"
                continue
            except ModelError as error:
                return self._cut(request, f"{type(error).__name__}: {error}", usage)
            usage = Usage(
                prompt=usage.prompt + reply.usage.prompt, completion=usage.completion + reply.usage.completion
            )
            try:
                return _checked(request, read_object(reply.content), head, usage)
            except ValueError as error:
                problem = f"the second model's answer can't be used: {error}"
        return self._cut(request, problem, usage)

    def _cut(self, request: Request, why: str, usage: Usage) -> Refined:
        head, tail = self._counter.clip(request.text, self._rule.over_tokens)
        text = request.text[:head]
        if tail:
            text += f"\n[…]\n{request.text[len(request.text) - tail :]}"
        return Refined(call=request.call, text=text, fallback=why[:500], usage=usage)

    def _key(self, request: Request) -> str:
        parts = (request.text, request.goal, request.question, self._model.name, self._rule.model_dump_json(), PROMPT)
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _checked(request: Request, answer: Mapping[str, Any], read: int, usage: Usage) -> Refined:
    quotes, summary = answer.get("evidence", []), answer.get("summary")
    if not isinstance(summary, str) or not isinstance(quotes, list):
        raise ValueError("`evidence` must be a list and `summary` text")  # noqa: TRY004 - bad text, not a bad caller
    found: list[Span] = []
    for quote in quotes:
        if isinstance(quote, str) and (span := locate(quote, request.text)) is not None and span not in found:
            found.append(span)
    unsupported = len(quotes) - len(found)
    if quotes and not found:
        raise ValueError("none of its quotes is in the result")
    found.sort(key=lambda span: span.start)
    lines = [f"[{span.start}:{span.end}] {request.text[span.start : span.end]}" for span in found]
    note = "" if read >= len(request.text) else f" of its first {read} characters"
    whole = f"Full result, {len(request.text)} characters: recall(id={request.call!r})."
    text = "\n".join(
        [
            f"[Extract{note} for: {request.goal[:300]}. {whole}]",
            summary.strip(),
            *(["Evidence [start:end]:", *lines] if lines else []),
        ]
    )
    spans = tuple((span.start, span.end) for span in found)
    return Refined(call=request.call, text=text, spans=spans, unsupported=unsupported, usage=usage)
