"""One record for each (benchmark, revision, item, attempt, configuration): written once, read by everything else.

runs/<benchmark>/<split>-<revision>/<configuration>/<item>/<attempt>/{record.json, events.jsonl.gz}
runs/…/<attempt>/leases/<generation>.json        who is at it; the highest generation counts
runs/…/<attempt>/events/<number>.jsonl           an unfinished trajectory, piece by piece
grades/<grader>/<benchmark>/…/<attempt>.json     verdicts, which may be made anew at any time
"""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict

from pinnace.agent import Event, EventLog, Summary, read_events
from pinnace.agent.events import encode

from .blobs import Blobs
from .graders import Grade

Kept = TypeVar("Kept", bound=BaseModel)
_READERS = 16
_NAME = re.compile(r"[^A-Za-z0-9._-]+")


class Record(BaseModel):
    """What one attempt came to. The raw answer is kept: grading is separate and may be repeated."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    benchmark: str
    split: str
    revision: str
    item: str
    attempt: int
    config: str
    question: str
    groups: dict[str, str] = {}
    answer: str | None = None
    response: str = ""
    detail: str = ""
    summary: Summary
    worker: str = ""
    finished: str = ""
    blocked: int = 0
    canaries: int = 0
    trajectory: str = ""


@dataclass(frozen=True)
class Unit:
    """One attempt at one item; `slug` is `Item.slug`."""

    item: str
    slug: str
    attempt: int


@dataclass(frozen=True)
class Place:
    """Where the records of one (benchmark, split, revision, configuration) lie."""

    benchmark: str
    split: str
    revision: str
    config: str

    @property
    def path(self) -> str:
        revision = self.revision.removeprefix("sha256:")[:16]
        return f"{_safe(self.benchmark)}/{_safe(self.split)}-{_safe(revision)}/{self.config[:16]}"

    def of(self, unit: Unit) -> str:
        """The folder of one attempt."""
        return f"runs/{self.path}/{unit.slug}/{unit.attempt:04d}"

    def grade(self, unit: Unit, grader: str) -> str:
        """The name of one verdict."""
        return f"grades/{grader_slug(grader)}/{self.path}/{unit.slug}/{unit.attempt:04d}.json"


def grader_slug(grader: str) -> str:
    """A grader's digest (with its judge) as a name."""
    return hashlib.sha256(grader.encode()).hexdigest()[:16]


def config_hash(config: Mapping[str, Any]) -> str:
    """SHA-256 of everything that shapes a trajectory: records of two configurations never mix."""
    return hashlib.sha256(json.dumps(config, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


class Records:
    """Reads and writes; keeps no state but the store's."""

    def __init__(self, blobs: Blobs, place: Place) -> None:
        self.blobs = blobs
        self.place = place

    def describe(self, config: Mapping[str, Any]) -> None:
        """Writes down what the configuration's hash stands for."""
        body = json.dumps(config, sort_keys=True, ensure_ascii=False, indent=2).encode()
        self.blobs.claim(f"runs/{self.place.path}/config.json", body)

    def finished(self) -> set[tuple[str, int]]:
        """(slug, attempt) of all records."""
        prefix = f"runs/{self.place.path}"
        found = set()
        for name in self.blobs.names(prefix):
            parts = name.removeprefix(f"{prefix}/").split("/")
            if len(parts) == 3 and parts[2] == "record.json":
                found.add((parts[0], int(parts[1])))
        return found

    def read(self, units: Sequence[Unit]) -> dict[Unit, Record]:
        """Records of these units, as far as they are there."""
        return dict(self._load(units, lambda unit: f"{self.place.of(unit)}/record.json", Record))

    def read_grades(self, units: Sequence[Unit], grader: str) -> dict[Unit, Grade]:
        """Verdicts of one grader, as far as they are there."""
        return dict(self._load(units, lambda unit: self.place.grade(unit, grader), Grade))

    def write_grade(self, unit: Unit, grader: str, grade: Grade) -> None:
        """Writes or replaces a verdict."""
        self.blobs.put(self.place.grade(unit, grader), grade.model_dump_json(indent=1).encode())

    def write(self, unit: Unit, record: Record, log: EventLog) -> bool:
        """Writes a finished attempt, trajectory first; false if another worker was first, whose record then counts.

        The trajectory's name has its digest, so that a worker that comes too late overwrites nothing.
        """
        folder, body = self.place.of(unit), gzip.compress(log.dump(), mtime=0)
        name = f"events-{hashlib.sha256(body).hexdigest()[:12]}.jsonl.gz"
        self.blobs.put(f"{folder}/{name}", body)
        written = record.model_copy(update={"trajectory": name})
        return self.blobs.claim(f"{folder}/record.json", written.model_dump_json(indent=1).encode())

    def clean(self, unit: Unit) -> None:
        """Deletes what a finished attempt no longer needs: pieces, leases, trajectories that came too late."""
        record = self.read([unit]).get(unit)
        if record is not None:
            folder = self.place.of(unit)
            kept = {f"{folder}/record.json", f"{folder}/{record.trajectory}"}
            self.blobs.delete([name for name in self.blobs.names(folder) if name not in kept])

    def trajectory(self, unit: Unit) -> list[Event]:
        """Events of a finished attempt, or of an unfinished one as far as they were written."""
        record = self.read([unit]).get(unit)
        if record is None:
            return self.pieces(unit)[0]
        name = f"{self.place.of(unit)}/{record.trajectory}"
        return read_events(gzip.decompress(self.blobs.get(name) or b""), name=name)

    def pieces(self, unit: Unit) -> tuple[list[Event], int]:
        """Events of an unfinished attempt, and in how many pieces they are."""
        folder = f"{self.place.of(unit)}/events"
        names = list(self.blobs.names(folder))
        content = b"".join(self.blobs.get(name) or b"" for name in names)
        return read_events(content, name=folder), len(names)

    def forget(self, unit: Unit) -> None:
        """Deletes an unfinished trajectory, so that it begins anew."""
        self.blobs.delete(list(self.blobs.names(f"{self.place.of(unit)}/events")))

    def _load(
        self, units: Sequence[Unit], name: Callable[[Unit], str], kind: type[Kept]
    ) -> Iterator[tuple[Unit, Kept]]:
        with ThreadPoolExecutor(_READERS) as pool:
            for unit, body in zip(units, pool.map(lambda unit: self.blobs.get(name(unit)), units), strict=True):
                if body is not None:
                    yield unit, kind.model_validate_json(body)


class Checkpointer:
    """Writes an unfinished trajectory piece by piece, at most every `every` seconds, and after every `most` events.

    What was not written yet when a worker dies is done again; paid work that was written never is.
    """

    def __init__(self, records: Records, unit: Unit, *, written: int = 0, every: float = 10, most: int = 32) -> None:
        """`written`: pieces that are there already."""
        self._blobs = records.blobs
        self._folder = f"{records.place.of(unit)}/events"
        self._number = written
        self._waiting: list[Event] = []
        self._every = every
        self._most = most
        self._written = time.monotonic()
        self._lock = threading.Lock()
        self._closed = False

    def __call__(self, event: Event) -> None:
        self._waiting.append(event)

    @property
    def due(self) -> bool:
        """Whether `flush` should be called."""
        waited = time.monotonic() - self._written
        return len(self._waiting) >= self._most or (bool(self._waiting) and waited >= self._every)

    def flush(self) -> None:
        """Writes what waits; blocks."""
        with self._lock:
            events, self._waiting = self._waiting, []
            if not events or self._closed:
                return
            body = b"".join(encode(event) + b"\n" for event in events)
            self._blobs.put(f"{self._folder}/{self._number:06d}.jsonl", body)
            self._number += 1
            self._written = time.monotonic()

    def close(self) -> None:
        """Waits for a piece that is being written; none follows. What waits is dropped: the whole log is at hand."""
        with self._lock:
            self._closed = True


def _safe(name: str) -> str:
    return _NAME.sub("-", name) or "x"
