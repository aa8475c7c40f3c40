"""LLM judges: recorded prompt, temperature 0, strict reading, and a failure that is neither right nor wrong."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from pinnace.agent import Endpoint, Model, ModelError, Sampling, Usage

from .grade import Answered, Grade, Verdict

Reading = tuple[Verdict, str | None, int | None]
_FIELDS = ("{question}", "{reference}", "{response}")


@dataclass(frozen=True)
class Judge:
    """The model that judges; `tries` requests at most for one verdict that can be read."""

    model: Model
    tries: int = 3

    @classmethod
    def at(cls, base_url: str, model: str, *, api_key: str = "none", max_tokens: int = 4096, tries: int = 3) -> Judge:
        """An endpoint, at temperature 0."""
        sampling = Sampling(max_tokens=max_tokens, temperature=0)
        return cls(Endpoint.at(base_url, model, sampling, api_key=api_key), tries)


@dataclass(frozen=True)
class JudgePrompt:
    """A prompt with {question}, {reference} and {response}, and how the judge's words are read.

    `read` gives None where there is no verdict in the demanded form: then the judge is asked again.
    """

    name: str
    text: str
    read: Callable[[str], Reading | None] = field(compare=False)

    @classmethod
    def shipped(cls, name: str, read: Callable[[str], Reading | None]) -> JudgePrompt:
        """One of the prompts in `graders/prompts`."""
        return cls(name, (Path(__file__).with_name("prompts") / f"{name}.txt").read_text(), read)

    def __post_init__(self) -> None:
        if missing := [each for each in _FIELDS if each not in self.text]:
            raise ValueError(f"judge prompt {self.name!r} lacks {missing[0]}")

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the text."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    def fill(self, answered: Answered) -> str:
        """One pass, so that braces in an answer do no harm."""
        values = {
            "{question}": answered.question,
            "{reference}": answered.reference,
            "{response}": answered.response or answered.answer or "",
        }
        return re.sub(r"\{(?:question|reference|response)\}", lambda match: values[match.group()], self.text)


@dataclass(frozen=True)
class JudgeGrader:
    """A prompt as a grader.

    Attributes:
        first: a rule that settles the matter where it says "right", before any judge is asked.
        answer_only: the judge sees the extracted answer instead of the whole response.
    """

    prompt: JudgePrompt
    first: Callable[[str, str], bool] | None = None
    answer_only: bool = False

    @property
    def name(self) -> str:
        return self.prompt.name

    @property
    def digest(self) -> str:
        first = getattr(self.first, "__name__", "")
        return f"judge:{self.prompt.digest[:16]}:{first}:{'answer' if self.answer_only else 'response'}"

    @property
    def needs_judge(self) -> bool:
        return True

    async def grade(self, answered: Answered, judge: Judge | None) -> Grade:
        if answered.answer is None and not answered.response.strip():
            return Grade(verdict=Verdict.WRONG, explanation="no answer", by=self.name)
        if self.first is not None and self._settled(answered):
            return Grade(verdict=Verdict.RIGHT, extracted=answered.answer, by="exact match")
        if judge is None:
            return Grade(verdict=Verdict.UNKNOWN, explanation="no judge was given", by=self.name)
        shown = answered
        if self.answer_only and answered.answer is not None:
            shown = Answered(answered.question, answered.reference, answered.answer, answered.answer)
        return await self._ask(shown, judge)

    def _settled(self, answered: Answered) -> bool:
        assert self.first is not None  # noqa: S101
        given = (answered.response, answered.answer or "")
        return any(self.first(answered.reference, text) for text in given if text)

    async def _ask(self, answered: Answered, judge: Judge) -> Grade:
        messages, usage, told = [{"role": "user", "content": self.prompt.fill(answered)}], Usage(), ""
        for number in range(1, judge.tries + 1):
            try:
                reply = await judge.model.complete(messages, ())
            except ModelError as error:
                told = f"{type(error).__name__}: {error}"
                return Grade(verdict=Verdict.UNKNOWN, explanation=told, by=judge.model.name, tries=number, usage=usage)
            usage = Usage(
                prompt=usage.prompt + reply.usage.prompt, completion=usage.completion + reply.usage.completion
            )
            told = reply.content.rpartition("</think>")[2].strip()
            reading = self.prompt.read(told)
            if reading is not None:
                verdict, extracted, confidence = reading
                return Grade(verdict=verdict, extracted=extracted or answered.answer, confidence=confidence,
                             explanation=told[:4000], by=judge.model.name, tries=number, usage=usage)  # fmt: skip
        return Grade(
            verdict=Verdict.UNKNOWN,
            explanation=f"no verdict in the judge's answer after {judge.tries} tries: {told[:1000]}",
            by=judge.model.name,
            tries=judge.tries,
            usage=usage,
        )
