"""Folding: what came before the last steps becomes {facts with sources, dead ends, next step}.

A fact is kept with the result it is from; one whose source is not in the log is marked. If the second model fails, the
fold is a plain list of what was called, and the event says so.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from .events import Folded, Usage
from .evidence import read_object
from .model import ContextTooLong, Model, ModelError
from .policy import FoldRule
from .steps import Step, Story
from .tokens import TokenCounter

_TRIES = 3
_SHORTER = 0.6
_CALLS_LISTED = 60
PROMPT = """You keep the notes of an agent that is looking for the answer to a question. Its context is full: your notes
replace the steps below, so what you leave out is lost. Do not answer the question and do not add anything from memory.

Reply with one JSON object:
{{"facts": [{{"text": "<what was found>", "source": "<result id, and the link if there is one>"}}, …],
"dead_ends": ["<what was tried without success>", …], "next_step": "<what the agent was about to do>"}}

[question]
{question}

[earlier notes]
{notes}

[steps]
{steps}"""
PROMPT_HASH = hashlib.sha256(PROMPT.encode()).hexdigest()
DISCARDED = "[Earlier steps were discarded for lack of room. Start again from the question.]"


class Folder:
    """Folds by one model and one rule."""

    def __init__(self, model: Model, rule: FoldRule, counter: TokenCounter, *, input_tokens: int) -> None:
        """`input_tokens`: what the second model can read, its own answer and the prompt's text not counted."""
        self._model = model
        self._rule = rule
        self._counter = counter
        self._input_tokens = input_tokens

    async def fold(self, story: Story, before: int) -> Folded:
        """The notes on all steps before event number `before`. Never raises for what the second model does."""
        if self._rule.mode == "discard":
            return Folded(before=before, text=DISCARDED, mode="discard")
        earlier = story.folds[-1][1] if story.folds else None
        covered = [step for step in story.steps if step.index < before]
        fresh = [step for step in covered if earlier is None or step.index >= earlier.before]
        notes = earlier.text if earlier is not None else "(none)"
        tokens, problem, usage = self._input_tokens, "", Usage()
        for _ in range(_TRIES):
            room = max(256, tokens - self._counter.text(notes) - self._counter.text(story.began.question))
            steps = _told(fresh, story, self._counter, room)
            prompt = PROMPT.format(question=story.began.question, notes=notes, steps=steps)
            try:
                reply = await self._model.complete([{"role": "user", "content": prompt}], ())
            except ContextTooLong:
                tokens, problem = int(tokens * _SHORTER), "the steps are too long for the second model"
                continue
            except ModelError as error:
                problem = f"{type(error).__name__}: {error}"
                break
            usage = Usage(
                prompt=usage.prompt + reply.usage.prompt, completion=usage.completion + reply.usage.completion
            )
            try:
                text, unsupported = _notes(read_object(reply.content), story, len(covered))
            except ValueError as error:
                problem = f"the second model's answer can't be used: {error}"
                continue
            text = self._capped(text)
            return Folded(before=before, text=text, unsupported=unsupported, usage=usage)
        return Folded(before=before, text=self._capped(_plain(covered, notes, earlier is not None)),
                      fallback=problem[:500], usage=usage)  # fmt: skip

    def _capped(self, text: str) -> str:
        head, tail = self._counter.clip(text, self._rule.output_tokens)
        return text if head >= len(text) else text[:head] + "\n[…]\n" + (text[len(text) - tail :] if tail else "")


def _told(steps: Sequence[Step], story: Story, counter: TokenCounter, tokens: int) -> str:
    """The steps as text; each result gets an equal share of the tokens."""
    results = sum(len(step.replies) for step in steps)
    share = max(48, tokens * 3 // 4 // max(1, results))
    lines = []
    for step in steps:
        said = step.turn.content or step.turn.reasoning or ""
        lines.append(f"Agent: {said[: counter.clip(said, share)[0]]}")
        for call in step.turn.calls:
            reply = step.replies.get(call.id)
            if reply is None:
                continue
            text = story.refined[call.id].text if call.id in story.refined else reply.text
            head, tail = counter.clip(text, share)
            shown = text if head >= len(text) else f"{text[:head]} […] {text[len(text) - tail :] if tail else ''}"
            lines.append(f"Result {call.id} of {call.name}({_arguments(call.arguments)}), {reply.outcome}: {shown}")
    text = "\n".join(lines)
    head, tail = counter.clip(text, tokens)
    return text if head >= len(text) else text[:head] + "\n[…]\n" + (text[len(text) - tail :] if tail else "")


def _notes(answer: Mapping[str, Any], story: Story, steps: int) -> tuple[str, int]:
    facts, ends, following = answer.get("facts", []), answer.get("dead_ends", []), answer.get("next_step", "")
    if not isinstance(facts, list) or not isinstance(ends, list) or not isinstance(following, str):
        raise ValueError("`facts` and `dead_ends` must be lists, `next_step` text")  # noqa: TRY004 - bad text
    if not facts and not ends and not following.strip():
        raise ValueError("it is empty")
    known, unsupported = story.results, 0
    lines = [f"[Notes on your first {steps} steps, which are not shown any more. recall(id=…) shows a result again.]"]
    if facts:
        lines.append("Facts:")
    for fact in facts:
        text, source = (fact.get("text"), str(fact.get("source", ""))) if isinstance(fact, dict) else (fact, "")
        supported = any(call in source for call in known)
        unsupported += not supported
        lines.append(f"- {text} ({source or 'no source'}{'' if supported else ', source not found'})")
    if ends:
        lines += ["Dead ends:", *(f"- {end}" for end in ends)]
    if following.strip():
        lines.append(f"Next step: {following.strip()}")
    return "\n".join(lines), unsupported


def _plain(steps: Sequence[Step], notes: str, has_notes: bool) -> str:
    lines = [f"[Your first {len(steps)} steps are not shown any more. recall(id=…) shows a result again.]"]
    if has_notes:
        lines.append(notes)
    called = [
        f"- {call.id}: {call.name}({_arguments(call.arguments)}), {step.replies[call.id].outcome}"
        for step in steps
        for call in step.turn.calls
        if call.id in step.replies
    ]
    lines += ["Called so far:", *called[-_CALLS_LISTED:]]
    thought = next((step.turn.content for step in reversed(steps) if step.turn.content.strip()), "")
    return "\n".join([*lines, *([f"Last thought: {thought[:1000]}"] if thought else [])])


def _arguments(arguments: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}: {value}" for name, value in arguments.items())[:300]
