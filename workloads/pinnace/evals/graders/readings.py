"""How judges' answers are read: the demanded form or nothing. A verdict is never guessed."""

from __future__ import annotations

import re

from pinnace.agent.evidence import read_object

from .grade import Verdict
from .judge import Reading

_YES_NO = re.compile(r"^[\s*_#-]*correct[\s*_]*:[\s*_\[]*(yes|no)\b", re.IGNORECASE | re.MULTILINE)
_EXTRACTED = re.compile(r"^[\s*_#-]*extracted_final_answer[\s*_]*:[ \t*_]*(.*)$", re.IGNORECASE | re.MULTILINE)
_CONFIDENCE = re.compile(r"^[\s*_#-]*confidence[\s*_]*:[^\d\n]*(\d+)", re.IGNORECASE | re.MULTILINE)
_FULL = 100


def hle(text: str) -> Reading | None:
    """`correct: yes|no`, `extracted_final_answer: …`, `confidence: n`, as lines or as JSON; 100 without a confidence.

    The word is taken, not the whole match: "correct: yes" is not "yes".
    """
    if text.lstrip().startswith(("{", "```")):
        return _hle_object(text)
    verdicts = {found.lower() for found in _YES_NO.findall(text)}
    if len(verdicts) != 1:
        return None
    extracted, confidence = _EXTRACTED.search(text), _CONFIDENCE.search(text)
    return (
        Verdict.RIGHT if verdicts == {"yes"} else Verdict.WRONG,
        extracted.group(1).strip() if extracted else None,
        min(int(confidence.group(1)), _FULL) if confidence else _FULL,
    )


def _hle_object(text: str) -> Reading | None:
    try:
        answer = read_object(text)
    except ValueError:
        return None
    correct = str(answer.get("correct", "")).lower()
    if correct not in {"yes", "no"}:
        return None
    digits = re.search(r"\d+", str(answer.get("confidence", "")))
    extracted = answer.get("extracted_final_answer")
    return (
        Verdict.RIGHT if correct == "yes" else Verdict.WRONG,
        str(extracted) if extracted is not None else None,
        min(int(digits.group()), _FULL) if digits else _FULL,
    )


_LETTER = re.compile(r"[\s*_\"'\[(]*([ABC])(?:[\s*_\"'\]).:]|$)")


def letter(text: str) -> Reading | None:
    """A: right; B: wrong; C: not attempted, which is wrong. The letter alone, or first."""
    match = _LETTER.match(text)
    if match is None:
        named = re.fullmatch(r"[\s*_\"\[(]*(CORRECT|INCORRECT|NOT_ATTEMPTED)[\s*_\"\]).]*", text)
        if named is None:
            return None
        return Verdict.RIGHT if named.group(1) == "CORRECT" else Verdict.WRONG, None, None
    return Verdict.RIGHT if match.group(1) == "A" else Verdict.WRONG, None, None


def word(text: str) -> Reading | None:
    """`Correct` or `Incorrect` and nothing else."""
    match = re.fullmatch(r"[\s*_\"']*(correct|incorrect)[\s*_\"'.]*", text, re.IGNORECASE)
    if match is None:
        return None
    return Verdict.RIGHT if match.group(1).lower() == "correct" else Verdict.WRONG, None, None


_GRADE = re.compile(r"GRADE[\s*_]*:[\s*_]*(CORRECT|INCORRECT)\b", re.IGNORECASE)
_DECISION = re.compile(r"Decision[\s*_\"]*:[\s*_\"]*(TRUE|FALSE)\b", re.IGNORECASE)
_CONCLUSION = re.compile(r"结论[\s*_]*[:：]*[\s*_'‘“\"\[【]*(正确|错误)")
_FINAL = re.compile(r"最终答案[\s*_]*[:：]*[ \t*_]*(.*)")


def grade(text: str) -> Reading | None:
    """The last `GRADE: CORRECT|INCORRECT`."""
    return _last(_GRADE, text, "correct")


def decision(text: str) -> Reading | None:
    """The last `Decision: TRUE|FALSE`."""
    return _last(_DECISION, text, "true")


def conclusion(text: str) -> Reading | None:
    """`结论: 正确|错误`, and the answer after 最终答案."""
    found = set(_CONCLUSION.findall(text))
    if len(found) != 1:
        return None
    final = _FINAL.search(text)
    return Verdict.RIGHT if found == {"正确"} else Verdict.WRONG, final.group(1).strip() if final else None, None


def _last(pattern: re.Pattern[str], text: str, right: str) -> Reading | None:
    found = pattern.findall(text)
    if not found:
        return None
    return Verdict.RIGHT if found[-1].lower() == right else Verdict.WRONG, None, None


READINGS = {
    "hle": hle,
    "letter": letter,
    "word": word,
    "grade": grade,
    "decision": decision,
    "conclusion": conclusion,
}
