"""The files of the output while they are made: what is left of each, what is durable, and how each ends."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic

from pinnace.storage.errors import NotFound
from pinnace.storage.insistence import Insistence
from pinnace.storage.manifest import FileEntry

from .groups import groups
from .layout import Part, Shard
from .plan import Plan
from .state import Output, Upload

_READ_BACK = 16 << 20


@dataclass(frozen=True)
class Progress:
    """How far it is: `bytes` of the output are durable, of `total`; `seconds` since the start; files that are done."""

    bytes: int
    total: int
    seconds: float
    shards: tuple[FileEntry, ...] = ()


class ShardWork:
    """One shard while it is made: the tags of its parts, and the groups that still have something to do."""

    def __init__(self, plan: Plan, shard: Shard, upload: Upload) -> None:
        self.shard = shard
        self.upload_id = upload.upload_id
        self.tags = dict(upload.parts)
        self.fresh = not self.tags
        self.missing = [part for part in shard.parts if part.number not in self.tags]
        self.groups = [
            group for group in groups(plan, shard) if any(part.number not in self.tags for part in group.parts)
        ]


class Shards:
    """All files of one merge. Tells `progress` after each part and file, from several threads."""

    def __init__(self, plan: Plan, output: Output, insist: Insistence, progress: Callable[[Progress], None]) -> None:
        self._plan = plan
        self._output = output
        self._insist = insist
        self._progress = progress
        self._began = monotonic()
        self._lock = threading.Lock()
        self._done_bytes = 0
        self._entries: list[FileEntry] = []

    @property
    def entries(self) -> list[FileEntry]:
        """Of the files that are done, by name."""
        return sorted(self._entries, key=lambda entry: entry.path)

    def work(self, shard: Shard) -> ShardWork | None:
        """What is left to do for a shard, None if it is done."""
        entry = self._output.done(shard)
        if entry is not None:
            self._finished(entry)
            return None
        if self._output.whole(shard):
            self._record(shard, None)
            return None
        work = ShardWork(self._plan, shard, self._output.upload(shard))
        self._done_bytes += sum(part.size for part in shard.parts if part.number in work.tags)
        return work

    def put(self, work: ShardWork, part: Part, body: bytearray) -> str:
        """Uploads a part. Returns its tag."""
        uri = self._output.uri / work.shard.file
        return self._insist(lambda: self._output.store.put_part(uri, work.upload_id, part.number, body))

    def durable(self, work: ShardWork, part: Part, tag: str) -> None:
        """Notes that a part is uploaded."""
        with self._lock:
            work.tags[part.number] = tag
            self._done_bytes += part.size
        self._report()

    def finish(self, work: ShardWork, sha256: str | None) -> None:
        """Completes a shard whose parts are all uploaded. `sha256` is its digest, where it is known."""
        uri = self._output.uri / work.shard.file
        tags = [work.tags[part.number] for part in work.shard.parts]
        try:
            self._insist(lambda: self._output.store.finish_parts(uri, work.upload_id, tags))
        except NotFound:
            # Another attempt may have completed it, or this one, whose answer was lost.
            if not self._output.whole(work.shard):
                raise
        self._record(work.shard, sha256)

    def _record(self, shard: Shard, sha256: str | None) -> None:
        """Notes a finished shard. Its digest can't go on where a dead attempt stopped: then it is read back."""
        entry = FileEntry(path=shard.file, size=shard.size, sha256=sha256 or self._read_back(shard))
        with self._lock:
            self._output.record(entry)
        self._finished(entry)

    def _finished(self, entry: FileEntry) -> None:
        with self._lock:
            self._entries.append(entry)
        self._report()

    def _read_back(self, shard: Shard) -> str:
        digest, uri = hashlib.sha256(), self._output.uri / shard.file
        body = memoryview(bytearray(min(_READ_BACK, shard.size)))
        for start in range(0, shard.size, _READ_BACK):
            piece = body[: min(_READ_BACK, shard.size - start)]
            self._insist(
                lambda start=start, piece=piece: self._output.store.read_into(uri, start, piece)  # type: ignore[misc]  # mypy can't infer lambdas with defaults
            )
            digest.update(piece)
        return digest.hexdigest()

    def _report(self) -> None:
        with self._lock:
            done = Progress(self._done_bytes, self._plan.output_bytes, monotonic() - self._began, tuple(self._entries))
        self._progress(done)
