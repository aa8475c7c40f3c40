"""What an unfinished merge leaves in the output folder, so that another attempt goes on: `merge-state.json`.

It names the plan by hash, the files that the merge writes, and the files that are done. Multipart uploads are found by
listing. A folder that holds something else is never touched.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.alias_generators import to_camel

from pinnace.storage.artifacts import Published
from pinnace.storage.errors import Conflict, NotFound
from pinnace.storage.insistence import Insistence
from pinnace.storage.manifest import MANIFEST, FileEntry, Manifest
from pinnace.storage.objects import ObjectStore
from pinnace.storage.uri import S3Uri

from .layout import Shard
from .plan import Plan

STATE = "merge-state.json"


class State(BaseModel):
    """`merge-state.json`: the plan's hash, the names of all files it writes, and the shards that are done."""

    model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=to_camel, populate_by_name=True)

    version: Literal[1] = 1
    plan: str
    files: tuple[str, ...]
    done: tuple[FileEntry, ...] = ()


@dataclass(frozen=True)
class Upload:
    """An unfinished multipart upload of one shard: its id and the tags of the parts that are there."""

    upload_id: str
    parts: Mapping[int, str]


class Output:
    """The output folder of one merge. All requests are repeated as `insist` says."""

    def __init__(self, store: ObjectStore, uri: S3Uri, plan: Plan, insist: Insistence) -> None:
        self.store = store
        self.uri = uri
        self._plan = plan
        self.insist = insist
        names = [shard.file for shard in plan.shards]
        self._state = State(plan=plan.hash, files=tuple(names))

    def published(self) -> Published | None:
        """The result, if an earlier attempt of the same plan has committed it."""
        manifest = self._manifest()
        if manifest is None or manifest.config_hash != self._plan.hash:
            return None
        self.insist(lambda: self.store.delete([self.uri / STATE]))
        return Published(str(self.uri), manifest.digest)

    def begin(self, *, replace: bool) -> None:
        """Takes the folder: goes on with the same plan's state, removes another plan's.

        Raises:
            Conflict: there is an artifact (and `replace` is false), or files that no merge made.
        """
        manifest = self._manifest()
        if manifest is not None:
            if not replace:
                raise Conflict(f"{self.uri} holds an artifact already ({manifest.digest}): choose another address")
            self.insist(lambda: self.store.delete([self.uri / MANIFEST]))
            self.insist(lambda: self.store.delete([self.uri / file.path for file in manifest.files]))
        state = self._read()
        if state is None:
            strange = next((one for one in self.store.list(self.uri)), None)
            if strange is not None and manifest is None:
                raise Conflict(f"{self.uri} is not empty ({self.uri.relative(strange.uri)}): choose another address")
            self._abort(lambda _: True)
        elif state.plan != self._plan.hash:
            self._abort(lambda _: True)
            self.insist(lambda: self.store.delete([self.uri / name for name in state.files]))
        else:
            self._state = state
            return
        self._write()

    def done(self, shard: Shard) -> FileEntry | None:
        """The entry of a shard that an earlier attempt has finished."""
        entry = next((one for one in self._state.done if one.path == shard.file), None)
        if entry is None:
            return None
        try:
            size = self.insist(lambda: self.store.size(self.uri / shard.file))
        except NotFound:
            return None
        return entry if size == entry.size else None

    def whole(self, shard: Shard) -> bool:
        """The shard's file is there, but the attempt that made it did not record it."""
        try:
            return self.insist(lambda: self.store.size(self.uri / shard.file)) == shard.size
        except NotFound:
            return False

    def upload(self, shard: Shard) -> Upload:
        """The unfinished upload of a shard with the most parts, or a new one; others are aborted."""
        uri = self.uri / shard.file
        best: Upload | None = None
        for upload_id in [found for where, found in self.insist(self._unfinished) if where == uri]:
            try:
                parts = self._valid_parts(shard, upload_id)
            except NotFound:
                continue
            if best is not None and len(best.parts) >= len(parts):
                self.store.abort_parts(uri, upload_id)
                continue
            if best is not None:
                self.store.abort_parts(uri, best.upload_id)
            best = Upload(upload_id, parts)
        return best or Upload(self.insist(lambda: self.store.begin_parts(uri)), {})

    def _valid_parts(self, shard: Shard, upload_id: str) -> dict[int, str]:
        sizes = {part.number: part.size for part in shard.parts}
        found = self.insist(lambda: self.store.list_parts(self.uri / shard.file, upload_id))
        return {part.number: part.tag for part in found if sizes.get(part.number) == part.size}

    def record(self, entry: FileEntry) -> None:
        """Notes that a shard is done."""
        others = tuple(one for one in self._state.done if one.path != entry.path)
        self._state = self._state.model_copy(update={"done": (*others, entry)})
        self._write()

    def abandon(self) -> None:
        """Removes everything that this merge has written: it can't succeed, whoever tries again."""
        self._abort(lambda _: True)
        self.insist(lambda: self.store.delete([*(self.uri / name for name in self._state.files), self.uri / STATE]))

    def finish(self) -> None:
        """Removes the state: the manifest is written."""
        self._abort(lambda _: True)
        self.insist(lambda: self.store.delete([self.uri / STATE]))

    def _abort(self, chosen: Callable[[S3Uri], bool]) -> None:
        for uri, upload_id in self.insist(self._unfinished):
            if chosen(uri):
                self.store.abort_parts(uri, upload_id)

    def _unfinished(self) -> list[tuple[S3Uri, str]]:
        return list(self.store.unfinished_parts(self.uri))

    def _manifest(self) -> Manifest | None:
        try:
            return Manifest.parse(self.insist(lambda: self.store.read(self.uri / MANIFEST)))
        except NotFound:
            return None

    def _read(self) -> State | None:
        try:
            return State.model_validate_json(self.insist(lambda: self.store.read(self.uri / STATE)))
        except NotFound:
            return None
        except ValidationError:
            raise Conflict(
                f"{self.uri / STATE} can't be read: remove it, and what lies beside it, if it is yours"
            ) from None

    def _write(self) -> None:
        body = self._state.model_dump_json(by_alias=True).encode()
        self.insist(lambda: self.store.put(self.uri / STATE, body))
