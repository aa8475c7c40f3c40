"""Conversations that are longer than `maxLength`, cut at turn borders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from pinnace.chat import Conversation, Renderer, Sample, Turn, join_turns


@dataclass
class Split:
    """`unreachable` are the assistant messages that do not fit even with the shortest context; they are counted."""

    samples: list[Sample] = field(default_factory=list)
    unreachable: list[int] = field(default_factory=list)


def split(renderer: Renderer, conversation: Conversation, wanted: Sequence[int], max_length: int) -> Split:
    """Trains every turn in `wanted` exactly once, in windows of at most `max_length` tokens.

    A window begins with what comes before the first assistant message (system, tools, question), as agents that drop
    their oldest turns do, then goes on with one earlier turn as context (not trained) and as many new turns as fit.
    Where even that one is too long, the window is the system message and the user's latest question.
    """
    result = Split()
    remaining = list(wanted)
    while remaining:
        taken: list[Turn] = []
        for opening, start in _contexts(conversation, remaining[0]):
            messages = (*conversation.messages[:opening], *conversation.messages[start:])
            window = replace(conversation, messages=messages)
            taken = _fitting(renderer, window, remaining, start - opening, max_length)
            if taken:
                break
        if taken:
            result.samples += join_turns(taken)
            remaining = remaining[len(taken) :]
        else:
            result.unreachable.append(remaining.pop(0))
    return result


def _contexts(conversation: Conversation, turn: int) -> list[tuple[int, int]]:
    """Windows to try for a turn, best first: (messages kept from the beginning, message to go on with)."""
    turns = conversation.turns
    position = turns.index(turn)
    contexts = [(turns[0], turns[0])]
    if position > 0:
        previous = turns[position - 1]
        contexts.append((turns[0], previous))
        if conversation.messages[previous + 1].role != "tool":
            systems = sum(message.role == "system" for message in conversation.messages[: turns[0]])
            contexts.append((systems, previous + 1))
    return contexts


def _fitting(
    renderer: Renderer, window: Conversation, remaining: Sequence[int], offset: int, max_length: int
) -> list[Turn]:
    wanted = {index - offset for index in remaining}
    taken: list[Turn] = []
    for turn in renderer.turns(window):
        if turn.index in wanted:
            if turn.length > max_length:
                break
            taken.append(replace(turn, index=turn.index + offset))
    return taken
