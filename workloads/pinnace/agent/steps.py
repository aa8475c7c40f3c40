"""A log grouped into steps: one model turn, the replies to its calls, and what the harness said after it."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field

from .events import Began, Call, Event, Folded, Nudged, Overflowed, Refined, Replied, Turned

_SHY = 0.05
"""Share of a prompt that the server found too long by which later ones are kept shorter."""


@dataclass
class Step:
    """`index` is the number of its `Turned` event in the log."""

    index: int
    turn: Turned
    replies: dict[str, Replied] = field(default_factory=dict)
    notes: list[Nudged] = field(default_factory=list)

    @property
    def silent(self) -> bool:
        """Without calls, and nobody has said anything about it yet: an answer, or nothing."""
        return not self.turn.calls and not self.notes

    @property
    def unanswered(self) -> tuple[Call, ...]:
        """Calls without a reply: what a crash interrupted."""
        return tuple(call for call in self.turn.calls if call.id not in self.replies)


@dataclass
class Story:
    """A log, read once. `slack` is by how many tokens our count of a prompt was ever too low."""

    began: Began
    steps: list[Step] = field(default_factory=list)
    refined: dict[str, Refined] = field(default_factory=dict)
    folds: list[tuple[int, Folded]] = field(default_factory=list)
    notes: list[Nudged] = field(default_factory=list)
    slack: int = 0
    shown: dict[Hashable, object] = field(default_factory=dict, repr=False)
    """Memory of whoever renders steps: a step that has not changed looks as it did."""
    _owner: dict[str, Step] = field(default_factory=dict, repr=False)

    def add(self, index: int, event: Event) -> None:
        """Takes in event number `index`."""
        match event:
            case Turned():
                step = Step(index, event)
                self.steps.append(step)
                self._owner.update((call.id, step) for call in event.calls)
                self.slack = max(self.slack, event.usage.prompt - event.view_tokens if event.view_tokens else 0)
            case Replied():
                self._owner[event.call].replies[event.call] = event
            case Refined():
                self.refined[event.call] = event
            case Folded():
                self.folds.append((index, event))
            case Nudged():
                (self.steps[-1].notes if self.steps else self.notes).append(event)
            case Overflowed():
                self.slack += max(64, int(event.counted * _SHY))
            case _:
                pass

    @property
    def results(self) -> dict[str, Replied]:
        """All replies, by call."""
        return {call: reply for step in self.steps for call, reply in step.replies.items()}


def read_story(events: Iterable[Event]) -> Story:
    """Groups a log that begins with `Began`."""
    iterator = iter(enumerate(events))
    _, first = next(iterator)
    assert isinstance(first, Began), "the log does not begin with `began`"  # noqa: S101 - EventLog.began says so kindly
    story = Story(first)
    for index, event in iterator:
        story.add(index, event)
    return story
