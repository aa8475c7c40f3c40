"""Rules: pure functions of reference and answer."""

from __future__ import annotations

import re
import string
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass

from .grade import Answered, Grade, Verdict
from .judge import Judge

_SPACE = re.compile(r"\s")
_LISTED = re.compile(r"[,;]")
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_UNITS = str.maketrans("", "", "$%,")


def gaia(reference: str, answer: str) -> bool:
    """GAIA's rule (Mialon et al., 2023, section 4; the leaderboard's scorer).

    A reference that is a number is compared as a number, without `$`, `%` and `,`; one with `,` or `;` as a list, in
    order, element by element, punctuation kept; any other without white space, punctuation and case.
    """
    if _number(reference) is not None:
        return _as_number(answer) == _number(reference)
    if _LISTED.search(reference):
        wanted, given = _LISTED.split(reference), _LISTED.split(answer)
        return len(wanted) == len(given) and all(
            _as_number(two) == _number(one) if _number(one) is not None else _plain(one) == _plain(two)
            for one, two in zip(wanted, given, strict=True)
        )
    return _plain(reference).translate(_PUNCTUATION) == _plain(answer).translate(_PUNCTUATION)


def exact(reference: str, answer: str) -> bool:
    """The same text, after Unicode normalisation (NFKC), white space at the ends apart."""
    return _folded(reference) == _folded(answer)


def exact_ignoring_case(reference: str, answer: str) -> bool:
    """As `exact`, without regard to case and runs of white space."""
    return " ".join(_folded(reference).casefold().split()) == " ".join(_folded(answer).casefold().split())


def number(reference: str, answer: str) -> bool:
    """Equal as numbers, within one part in a million. A reference that is no number raises `ValueError`."""
    wanted = _number(reference.translate(_UNITS))
    if wanted is None:
        raise ValueError(f"the reference {reference!r} is not a number: use another rule for this item")
    given = _number(answer.translate(_UNITS))
    return given is not None and abs(given - wanted) <= 1e-6 * max(1.0, abs(wanted))


_FINAL = re.compile(r"最终答案[*_ \t]*[:：]*(.*)")


def xbench_exact(reference: str, answer: str) -> bool:
    """xbench's first step: what follows 最终答案: on its line is the very reference; or the extracted answer is."""
    match = _FINAL.search(answer)
    return (match.group(1).strip() if match else answer.strip()) == reference


RULES: dict[str, Callable[[str, str], bool]] = {
    "gaia": gaia,
    "exact": exact,
    "exact-ignoring-case": exact_ignoring_case,
    "number": number,
}
_VERSION = "1"


@dataclass(frozen=True)
class RuleGrader:
    """A rule as a grader."""

    name: str
    rule: Callable[[str, str], bool]

    @property
    def digest(self) -> str:
        return f"rule:{self.name}:{_VERSION}"

    @property
    def needs_judge(self) -> bool:
        return False

    async def grade(self, answered: Answered, judge: Judge | None) -> Grade:  # noqa: ARG002 - the protocol's
        if answered.answer is None:
            return Grade(verdict=Verdict.WRONG, explanation="no answer", by=self.name)
        right = self.rule(answered.reference, answered.answer)
        return Grade(verdict=Verdict.RIGHT if right else Verdict.WRONG, extracted=answered.answer, by=self.name)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _as_number(text: str) -> float:
    # As the official scorer has it: what is no number is infinite, and so equals only an infinite reference.
    found = _number(text.translate(_UNITS))
    return float("inf") if found is None else found


def _plain(text: str) -> str:
    return _SPACE.sub("", text).lower()


def _folded(text: str) -> str:
    return unicodedata.normalize("NFKC", text).strip()
