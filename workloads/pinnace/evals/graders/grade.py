"""What a grader gives."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

from pydantic import BaseModel, ConfigDict

from pinnace.agent import Usage

if TYPE_CHECKING:
    from .judge import Judge


class Verdict(StrEnum):
    """`unknown`: the judge failed. It counts neither as right nor as wrong and is reported."""

    RIGHT = "right"
    WRONG = "wrong"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Answered:
    """What is graded: the question, the reference, the extracted answer (None: none) and the whole last text."""

    question: str
    reference: str
    answer: str | None
    response: str = ""


class Grade(BaseModel):
    """One verdict.

    Attributes:
        extracted: the answer as the grader understood it.
        confidence: of the agent, 0 to 100, where it states one.
        explanation: why; for `unknown`, what went wrong.
        by: the rule, or the judge's model.
        tries: requests to the judge.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    verdict: Verdict
    extracted: str | None = None
    confidence: int | None = None
    explanation: str = ""
    by: str = ""
    tries: int = 0
    usage: Usage = Usage()


class Grader(Protocol):
    """Grades one answer."""

    @property
    def name(self) -> str:
        """For reports."""

    @property
    def digest(self) -> str:
        """Changes when verdicts may change: of the rule's version or the judge's prompt."""

    @property
    def needs_judge(self) -> bool:
        """Whether `grade` asks a judge."""

    async def grade(self, answered: Answered, judge: Judge | None) -> Grade:
        """The verdict. Never raises for what the judge does."""


@dataclass(frozen=True)
class Profile:
    """A way to grade. `judge` is its authors' model: with another, scores may differ, and reports say so."""

    grader: Grader
    judge: str | None = None
    note: str = ""
