"""Which part of the model's text is the answer: a declared rule."""

from __future__ import annotations

import re
from collections.abc import Callable

_TAG = re.compile(r"<answer>(.*?)</answer>", re.DOTALL | re.IGNORECASE)
_LINE = re.compile(
    r"^[ \t*_#>-]*(?:final answer|exact answer|answer|最终答案|答案)[*_ \t]*[:：][*_ \t]*(\S.*)$",  # noqa: RUF001 - Chinese
    re.MULTILINE | re.IGNORECASE,
)


def tagged(text: str) -> str | None:
    """The last `<answer>…</answer>`."""
    found = _TAG.findall(text)
    return str(found[-1]).strip() if found else None


def boxed(text: str) -> str | None:
    r"""The last `\boxed{…}`, its braces balanced."""
    start = text.rfind("\\boxed{")
    if start < 0:
        return None
    depth, begin = 1, start + len("\\boxed{")
    for position in range(begin, len(text)):
        depth += {"{": 1, "}": -1}.get(text[position], 0)
        if depth == 0:
            return text[begin:position].strip()
    return None


def line(text: str) -> str | None:
    """What follows the last `Final Answer:`, `Exact Answer:`, `Answer:` or `最终答案:` on its line."""
    found = _LINE.findall(text)
    return str(found[-1]).strip().rstrip("*_ ") if found else None


def final(text: str) -> str | None:
    """The whole last message."""
    return text.strip() or None


RULES: dict[str, Callable[[str], str | None]] = {"tag": tagged, "boxed": boxed, "line": line, "final": final}


class AnswerRule:
    """One or several rules, tried in order: `tag`, `boxed`, `line`, `final`, written `tag|final`."""

    def __init__(self, text: str) -> None:
        """Raises `ValueError` for a rule that does not exist."""
        self.text = text
        names = [name.strip() for name in text.split("|")]
        if unknown := [name for name in names if name not in RULES]:
            raise ValueError(f"unknown answer rule {unknown[0]!r}: use {', '.join(RULES)}, or several joined with |")
        self._rules = [RULES[name] for name in names]

    def __call__(self, text: str) -> str | None:
        """The answer, or None: then the model has not answered."""
        return next((found for rule in self._rules if (found := rule(text)) is not None), None)

    @property
    def hint(self) -> str:
        """What to tell a model that did not keep to it."""
        first = self.text.partition("|")[0].strip()
        return {
            "tag": "Write your final answer as <answer>your answer</answer>.",
            "boxed": r"Write your final answer as \boxed{your answer}.",
            "line": "End with a line `Final Answer: your answer`.",
            "final": "Write your final answer.",
        }[first]
