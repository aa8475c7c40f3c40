"""The append-only log of one trajectory: the truth from which everything else is computed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import overload

from .events import Began, Ended, Event, decode, encode


class DamagedLog(ValueError):
    """A log that can't be read back; the message names the line."""


class EventLog(Sequence[Event]):
    """Events in order. `on_append` is told each one before it is visible: where it is written, it survives."""

    def __init__(self, events: Iterable[Event] = (), *, on_append: Callable[[Event], None] | None = None) -> None:
        self._events: list[Event] = list(events)
        self._on_append = on_append

    def append(self, event: Event) -> None:
        if self.ended is not None:
            raise ValueError(f"the trajectory has ended ({self.ended.termination}): nothing can be appended")
        if self._on_append is not None:
            self._on_append(event)
        self._events.append(event)

    @overload
    def __getitem__(self, index: int) -> Event: ...
    @overload
    def __getitem__(self, index: slice) -> list[Event]: ...
    def __getitem__(self, index: int | slice) -> Event | list[Event]:
        return self._events[index]

    def __len__(self) -> int:
        return len(self._events)

    def __iter__(self) -> Iterator[Event]:
        return iter(self._events)

    @property
    def began(self) -> Began:
        """The first event. Raises `DamagedLog` if the log has none."""
        first = self._events[0] if self._events else None
        if not isinstance(first, Began):
            raise DamagedLog("the log does not begin with `began`: it is not the log of a trajectory")
        return first

    @property
    def ended(self) -> Ended | None:
        """The last event, if it is the end."""
        last = self._events[-1] if self._events else None
        return last if isinstance(last, Ended) else None

    @property
    def elapsed(self) -> float:
        """Active seconds up to the last event."""
        return self._events[-1].t if self._events else 0.0

    def dump(self) -> bytes:
        """JSON lines."""
        return b"".join(encode(event) + b"\n" for event in self._events)


def read_events(content: bytes, *, name: str = "the log") -> list[Event]:
    """Events of JSON lines. A last line that a crash cut short is left out; anything else that is damaged is refused.

    Raises:
        DamagedLog: naming `name` and the line.
    """
    events: list[Event] = []
    lines = content.split(b"\n")
    for number, line in enumerate(lines, 1):
        if not line:
            continue
        try:
            events.append(decode(line))
        except ValueError as error:
            if number == len(lines):  # no line end after it: the writer died here
                break
            first = str(error).splitlines()[0]
            raise DamagedLog(f"{name}, line {number}: {first}; delete it to run this attempt anew") from None
    return events


class FileLog:
    """A log in a local file, durable after every event: `EventLog(*, on_append=FileLog(path))`."""

    def __init__(self, path: Path, *, sync: bool = False) -> None:
        """`sync` also survives the machine's crash, at the price of an fsync for each event."""
        self._path = path
        self._sync = sync

    def read(self) -> list[Event]:
        """What is there; removes what a crash left half-written, so that appending goes on from a whole line."""
        if not self._path.exists():
            return []
        content = self._path.read_bytes()
        events = read_events(content, name=str(self._path))
        whole = content[: content.rfind(b"\n") + 1]
        if len(whole) != len(content):
            self._path.write_bytes(whole)
            events = read_events(whole, name=str(self._path))
        return events

    def __call__(self, event: Event) -> None:
        with self._path.open("ab") as file:
            file.write(encode(event) + b"\n")
            if self._sync:
                file.flush()
                os.fsync(file.fileno())
