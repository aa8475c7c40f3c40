"""A trajectory as the page shows it: what was thought, called, returned, refined and folded, in order."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field

from pinnace.agent import Event
from pinnace.agent.events import Began, Ended, Folded, Nudged, Overflowed, Refined, Replied, Turned

_MOST = 4_000


@dataclass
class Entry:
    """One line of the timeline. `raw` is what stands behind `text`, if that is shorter or refined."""

    kind: str
    title: str
    text: str = ""
    raw: str = ""
    notes: list[str] = field(default_factory=list)


def timeline(events: Iterable[Event]) -> list[Entry]:
    """Entries in order. Long texts are cut, and say so: the whole is in the records."""
    entries: list[Entry] = []
    by_call: dict[str, Entry] = {}
    number = 0
    for event in events:
        match event:
            case Turned():
                number += 1
                entries.append(_turn(event, number))
            case Replied():
                entry = Entry("result", f"{event.name} → {event.outcome}", _cut(event.text))
                entry.notes = [event.call, f"{event.seconds:.1f} s", f"{len(event.text)} characters"]
                entry.notes += [f"{key}: {value}" for key, value in event.meta.items() if key != "requestId"]
                by_call[event.call] = entry
                entries.append(entry)
            case Refined() if event.call in by_call:
                entry = by_call[event.call]
                entry.raw, entry.text = entry.text, _cut(event.text)
                entry.notes.append(f"refined, {len(event.spans)} quotes" + (", from cache" if event.cached else ""))
                if event.fallback:
                    entry.notes.append(f"cut instead of refined: {event.fallback}")
            case _:
                entries += _other(event)
    return entries


def _turn(event: Turned, number: int) -> Entry:
    said = [
        f"{call.name}({json.dumps(call.arguments, ensure_ascii=False)})" for call in event.calls if not call.problem
    ]
    said += [f"malformed: {call.problem}: {call.raw}" for call in event.calls if call.problem]
    entry = Entry("turn", f"Turn {number}", _cut("\n".join(part for part in (event.content, *said) if part)))
    entry.raw = _cut(event.reasoning or "")
    entry.notes = [f"{event.seconds:.1f} s", f"{event.usage.prompt} → {event.usage.completion} tokens"]
    entry.notes += [f"{event.usage.cached} cached"] if event.usage.cached else []
    entry.notes += ["asked to answer"] if event.forced else []
    return entry


def _other(event: Event) -> list[Entry]:
    match event:
        case Began():
            return [Entry("question", "Question", _cut(event.question), _cut(event.system))]
        case Folded():
            title = f"Folded ({event.mode})" + (f": {event.fallback}" if event.fallback else "")
            return [Entry("fold", title, _cut(event.text))]
        case Nudged():
            return [Entry("nudge", f"Harness: {event.reason}", _cut(event.text))]
        case Overflowed():
            return [Entry("nudge", "The server found the prompt too long", _cut(event.message))]
        case Ended():
            title = f"Ended: {event.termination}" + (", asked to answer" if event.forced else "")
            return [Entry("end", title, _cut(event.answer or "(no answer)"), _cut(event.detail))]
        case _:
            return []


def _cut(text: str) -> str:
    return text if len(text) <= _MOST else f"{text[:_MOST]}\n[… {len(text) - _MOST} more characters in the records]"
