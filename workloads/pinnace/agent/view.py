"""What the model sees: a pure function of the log and the policy.

In order: results are refined, capped or stubbed as the policy says; folded steps are one note in the question; if the
rest still does not fit, the oldest steps are left out. System prompt, question and last step always survive, a call is
never shown without its result, and between two changes of `epoch` each view begins with the one before it, so that a
server's prefix cache holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .events import Event, Folded, Replied
from .policy import Policy
from .steps import Step, Story, read_story
from .tokens import TokenCounter

Message = dict[str, Any]
RECALL = "recall"
_QUANTA = 4
"""Oldest steps are left out in pieces of this share of the budget: seldom, so that the prefix stays."""
_LEAST_RESULT = 32


class ContextFull(ValueError):
    """System prompt, question and last step alone exceed the budget."""


@dataclass(frozen=True)
class Budget:
    """Tokens: the server's `context`, of which `reserve` belongs to what the model writes."""

    context: int
    reserve: int

    @property
    def limit(self) -> int:
        """What a prompt may have."""
        return self.context - self.reserve


@dataclass(frozen=True)
class View:
    """Messages in OpenAI's form and our count of them.

    Attributes:
        epoch: changes whenever anything but the end of the view may have changed.
        full_tokens: what it would have had before the oldest steps were left out.
        left_out: oldest steps that are neither shown nor folded.
        squeezed: even the last step had to be cut.
        fold_before: with a fold due, the event number for `Folded.before`; else None.
    """

    messages: list[Message]
    tokens: int
    epoch: tuple[int, ...]
    full_tokens: int
    left_out: int = 0
    squeezed: bool = False
    fold_before: int | None = None

    @property
    def overflow(self) -> bool:
        """Whether something was lost that the policy did not ask to lose."""
        return self.left_out > 0 or self.squeezed


def view(log: Sequence[Event], policy: Policy, counter: TokenCounter, budget: Budget) -> View:
    """The view of a log that begins with `Began`. Raises `ContextFull`."""
    return view_story(read_story(log), policy, counter, budget)


def view_story(story: Story, policy: Policy, counter: TokenCounter, budget: Budget) -> View:
    """`view` of a log that is read already."""
    limit = budget.limit - story.slack
    fold_index, fold = story.folds[-1] if story.folds else (0, None)
    steps = [step for step in story.steps if fold is None or step.index >= fold.before]
    stubbed = _stubbed(story, policy)
    pairs = [_shown(step, story, policy, counter, stubbed) for step in steps]
    shown, sizes = [messages for messages, _ in pairs], [size for _, size in pairs]

    def head(left_out: int) -> tuple[list[Message], int]:
        messages = _head(story, fold, left_out)
        return messages, counter.head(messages, story.began.tools)

    # Remembered: with the definitions of hundreds of tools, rendering it costs more than all the rest.
    key = (fold_index, len(story.notes), _Same(counter))
    known: Any = story.shown.get(key)
    if known is None:
        known = story.shown[key] = head(0)
    opening, opening_tokens = known
    full = opening_tokens + sum(sizes)
    due = _fold_due(steps, policy, full, limit)
    if full <= limit:
        messages = opening + [message for part in shown for message in part]
        return View(messages, full, (fold_index, len(stubbed), 0), full, fold_before=due)

    left_out = _left_out(sizes, limit - head(len(steps))[1])
    opening, opening_tokens = head(left_out)
    total = opening_tokens + sum(sizes[left_out:])
    squeezed = total > limit
    if squeezed:
        last = _squeezed(shown[-1] if shown else [], counter, limit - opening_tokens)
        shown, left_out = [last], max(0, len(steps) - 1)
        total = opening_tokens + sum(counter.message(message) for message in last)
        messages = opening + last
    else:
        messages = opening + [message for part in shown[left_out:] for message in part]
    epoch = (fold_index, len(stubbed), left_out, len(story.steps) if squeezed else 0)
    return View(messages, total, epoch, full, left_out, squeezed, due)


def _stubbed(story: Story, policy: Policy) -> frozenset[str]:
    if policy.keep_last is None:
        return frozenset()
    calls = [call.id for step in story.steps for call in step.turn.calls if call.id in step.replies]
    hidden = max(0, len(calls) - policy.keep_last.results)
    hidden -= hidden % policy.keep_last.every
    last = {call.id for call in story.steps[-1].turn.calls} if story.steps else set()
    return frozenset(calls[:hidden]) - last


def _head(story: Story, fold: Folded | None, left_out: int) -> list[Message]:
    began = story.began
    parts = [began.question]
    if fold is not None:
        parts.append(fold.text)
    if left_out:
        parts.append(f"[{left_out} earlier steps are not shown for lack of room.]")
    parts += [note.text for note in story.notes]
    text = "\n\n".join(parts)
    content: str | list[Message] = text
    if began.images:
        content = [{"type": "text", "text": text}]
        content += [{"type": "image_url", "image_url": {"url": image}} for image in began.images]
    system: list[Message] = [{"role": "system", "content": began.system}] if began.system else []
    return [*system, {"role": "user", "content": content}]


def _shown(
    step: Step, story: Story, policy: Policy, counter: TokenCounter, stubbed: frozenset[str]
) -> tuple[list[Message], int]:
    """A step's messages and their tokens; remembered in the story, since most steps look as they did a turn ago."""
    calls = [call.id for call in step.turn.calls]
    refined = sum(call in story.refined for call in calls)
    hidden = tuple(call in stubbed for call in calls)
    # Policy and counter themselves, not their ids: what is in a key can't be collected and replaced.
    key = (step.index, len(step.replies), len(step.notes), refined, hidden, _Same(policy), _Same(counter))
    known = story.shown.get(key)
    if known is None:
        messages = _messages(step, story, policy, counter, stubbed)
        known = story.shown[key] = messages, sum(counter.message(message) for message in messages)
    return known  # type: ignore[return-value]  # the story doesn't know what its renderers remember


@dataclass(frozen=True, eq=False)
class _Same:
    """Equal only for the very same object."""

    it: object

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.it is other.it

    def __hash__(self) -> int:
        return id(self.it)


def _messages(
    step: Step, story: Story, policy: Policy, counter: TokenCounter, stubbed: frozenset[str]
) -> list[Message]:
    turn = step.turn
    said: Message = {"role": "assistant", "content": turn.content}
    if turn.reasoning and policy.reasoning == "all":
        said["reasoning_content"] = turn.reasoning
    named = [call for call in turn.calls if call.name]  # a call too garbled to have a name is in the text
    if named:
        said["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": call.text},
            }
            for call in named
        ]
    messages = [said]
    for call in named:
        reply = step.replies.get(call.id)
        text = "(no result)" if reply is None else _result(reply, story, policy, counter, stubbed)
        messages.append({"role": "tool", "tool_call_id": call.id, "content": text})
    garbled = [step.replies[call.id].text for call in turn.calls if not call.name and call.id in step.replies]
    messages += [{"role": "user", "content": text} for text in garbled]
    messages += [{"role": "user", "content": note.text} for note in step.notes]
    return messages


def _result(reply: Replied, story: Story, policy: Policy, counter: TokenCounter, stubbed: frozenset[str]) -> str:
    if reply.call in stubbed:
        return (
            f"[Result {reply.call} of {reply.name}, {reply.outcome}, {counter.text(reply.text)} tokens: not shown any \
more. {RECALL}(id={reply.call!r}) shows it again.]"
        )
    refined = story.refined.get(reply.call)
    text = refined.text if refined is not None else reply.text
    return text if policy.result_tokens is None else cut(text, policy.result_tokens, counter, reply.call)


def cut(text: str, tokens: int, counter: TokenCounter, call: str) -> str:
    """Head and tail of a text within `tokens`, with a note in between that says what is missing."""
    if counter.clip(text, tokens)[0] >= len(text):
        return text
    room = max(1, tokens - counter.text(_gap(len(text), len(text), call)) - 2)
    head, tail = counter.clip(text, room)
    return text[:head] + _gap(len(text) - head - tail, head, call) + (text[len(text) - tail :] if tail else "")


def _gap(missing: int, start: int, call: str) -> str:
    return f"\n[… {missing} characters are not shown; {RECALL}(id={call!r}, start={start}) shows them …]\n"


def _fold_due(steps: list[Step], policy: Policy, tokens: int, limit: int) -> int | None:
    rule = policy.fold
    if rule is None or tokens * 100 <= limit * rule.at_percent or len(steps) <= rule.keep_steps:
        return None
    return steps[-rule.keep_steps].index


def _left_out(sizes: list[int], room: int) -> int:
    """How many of the oldest steps to leave out, so that the others have at most `room` tokens; never the last."""
    quantum = max(1, room // _QUANTA)
    total, gone, count, border = sum(sizes), 0, 0, 0
    while total - gone > room and count < len(sizes) - 1:
        border += quantum
        while count < len(sizes) - 1 and gone + sizes[count] <= border:
            gone += sizes[count]
            count += 1
    return count


def _squeezed(messages: list[Message], counter: TokenCounter, room: int) -> list[Message]:
    """The last step within `room` tokens: results first, then thoughts, then text; its calls stay as they are."""
    if not messages:
        raise ContextFull(
            f"system prompt, tools and question exceed the context by {-room} tokens: raise the server's context "
            "length, lower maxTokens, or offer fewer tools"
        )
    results = [index for index, message in enumerate(messages) if message["role"] == "tool"]
    fixed = [counter.message({**message, "content": ""} if index in results else message)
             for index, message in enumerate(messages)]  # fmt: skip
    share = (room - sum(fixed)) // len(results) - 1 if results else 0
    if share < _LEAST_RESULT:
        share = min(_LEAST_RESULT, max(share, 0)) or _LEAST_RESULT
        said = dict(messages[0])
        said.pop("reasoning_content", None)
        others = sum(fixed[1:]) + len(results) * (share + 1)
        bare = counter.message({**said, "content": ""})
        text = said["content"]
        head, _ = counter.clip(text, max(0, room - others - bare - 1))
        said["content"] = text[:head]
        messages = [said, *messages[1:]]
    for index in results:
        text = messages[index]["content"]
        head, tail = counter.clip(text, share)
        kept = text if head >= len(text) else text[:head] + (text[len(text) - tail :] if tail else "")
        messages = [*messages[:index], {**messages[index], "content": kept}, *messages[index + 1 :]]
    if (size := sum(counter.message(message) for message in messages)) > room:
        raise ContextFull(f"the last step alone exceeds the context by {size - room} tokens: its calls are too long")
    return messages
