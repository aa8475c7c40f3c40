"""Agents that play Scout behind an OpenAI-compatible endpoint: one that knows the way, and one that knows nothing.

The oracle opens the pages of the evidence in order, by the tools, and goes on only when a page really says what it
should: its score shows that the questions can be answered with what the tools give.
"""

from __future__ import annotations

import gzip
import json
import random
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pinnace.agent.fold import PROMPT as FOLD_PROMPT
from pinnace.agent.refine import PROMPT as REFINE_PROMPT

from e2e.faults.model import Answer, Request

_LINK = re.compile(r"\[([^\]]*)\]\((/[^)]*)\)")
_AT = re.compile(r"Fact (\d+) of (\d+)")
_FOLDS, _REFINES = (prompt.partition(".")[0] for prompt in (FOLD_PROMPT, REFINE_PROMPT))


def read_tasks(file: Path) -> dict[str, dict[str, Any]]:
    """Rows of a question file by question."""
    return {row["question"]: row for row in map(json.loads, gzip.open(file, "rt", encoding="utf-8"))}


@dataclass
class Oracle:
    """A script that looks up fact after fact: `open` first, then `find` for what is on a later page."""

    tasks: dict[str, dict[str, Any]]
    lost: list[str] = field(default_factory=list)

    def __call__(self, request: Request) -> Answer:
        texts = [_text(message) for message in request["messages"]]
        if texts[0].startswith(_FOLDS):
            return _notes(texts[0])
        if texts[0].startswith(_REFINES):
            return self._quotes(texts[0].partition("[question]\n")[2])
        asked = next(
            text for message, text in zip(request["messages"], texts, strict=True) if message["role"] == "user"
        )
        task = self._task(asked)
        return Answer("Hello.") if task is None else self._turn(task, texts, request["messages"][-1]["role"])

    def _turn(self, task: dict[str, Any], texts: list[str], last: str) -> Answer:
        evidence = task["evidence"]
        at = max((int(number) for text in texts for number, _ in _AT.findall(text)), default=0)
        if at == 0:
            return self._look(1, evidence, "open")
        seen, fact = _LINK.sub(r"\1", texts[-1]), evidence[at - 1]
        if fact["statement"] in seen:
            if at == len(evidence):
                return Answer(f"<answer>{task['answer']}</answer>")
            again = evidence[at]["url"] == fact["url"]
            return self._look(at + 1, evidence, "find" if again else "open")
        if last == "user":  # a limit was reached: answer now
            self.lost.append(f"{task['id']}: stopped at fact {at}")
            return Answer("<answer>I don't know</answer>")
        return self._look(at, evidence, "find")

    def _task(self, asked: str) -> dict[str, Any] | None:
        """None: it is none of ours, as when somebody only asks whether the model takes tools."""
        known = [each for each in self.tasks if asked.startswith(each)]
        return self.tasks[max(known, key=len)] if known else None

    def _quotes(self, prompt: str) -> Answer:
        """What a second model reads in a result: the lines that state a fact of the way."""
        task = self._task(prompt)
        statements = [fact["statement"] for fact in task["evidence"]] if task else []
        lines = prompt.partition("\n[result]\n")[2].splitlines()
        found = [line for line in lines if any(each in _LINK.sub(r"\1", line) for each in statements)]
        summary = "It states a fact of the way." if found else "It says nothing about the way."
        return Answer(json.dumps({"evidence": found, "summary": summary}, ensure_ascii=False))

    @staticmethod
    def _look(number: int, evidence: list[dict[str, str]], tool: str) -> Answer:
        fact = evidence[number - 1]
        arguments = {"url": fact["url"]} | ({"words": fact["obtains"]} if tool == "find" else {})
        return Answer(f"Fact {number} of {len(evidence)}: {fact['url']}", calls=[(tool, arguments)])


@dataclass
class Wanderer:
    """A script that searches for words of the question, follows links blindly, and answers with a name it has seen."""

    turns: int = 5
    dice: random.Random = field(default_factory=lambda: random.Random(1))  # noqa: S311 - no secret

    def __call__(self, request: Request) -> Answer:
        texts = [_text(message) for message in request["messages"]]
        results = [text for message, text in zip(request["messages"], texts, strict=True) if message["role"] == "tool"]
        links = [link for text in results for link in _LINK.findall(text)]
        if len(results) >= self.turns:
            names = [name for name, _ in links] or ["nobody"]
            return Answer(f"<answer>{self.dice.choice(names)}</answer>")
        if links and self.dice.random() < 0.7:
            return Answer(calls=[("open", {"url": self.dice.choice(links)[1]})])
        found = re.findall(r"http://world\.test/\S+", results[-1]) if results else []
        if found:
            return Answer(calls=[("open", {"url": self.dice.choice(found)})])
        words = self.dice.sample(texts[1].split(), k=min(3, len(texts[1].split())))
        return Answer(calls=[("search", {"query": " ".join(words)})])


def _notes(prompt: str) -> Answer:
    """What a second model writes: how far the agent is, with the result that shows it."""
    at, of = max(((int(number), of) for number, of in _AT.findall(prompt)), default=(0, "?"))
    results: Iterable[str] = re.findall(r"Result (r\d+-\d+)", prompt)
    source = list(results)[-1:] or ["none"]
    noted = {"facts": [{"text": f"Fact {at} of {of} is found", "source": source[0]}], "dead_ends": [], "next_step": ""}
    return Answer(json.dumps(noted))


def _text(message: dict[str, Any]) -> str:
    content = message.get("content") or ""
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)
