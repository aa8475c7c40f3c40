"""One rank's share of one checkpoint, uploaded in the background, and the commit that makes it exist."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from pinnace.storage.errors import CheckpointFailed, Conflict, InvalidName, NotFound
from pinnace.storage.insistence import Insistence
from pinnace.storage.manifest import MANIFEST, FileEntry, Manifest, now
from pinnace.storage.objects import ObjectStore
from pinnace.storage.transfer import LocalFile, Transfer, tree
from pinnace.storage.uri import S3Uri

PARTS = "parts"


class Part(BaseModel):
    """`parts/rank-NNNNN.json`: what one rank has uploaded; `session` tells a dead attempt's parts from ours."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: Literal[1] = 1
    session: str
    rank: int
    world_size: int
    files: tuple[FileEntry, ...]
    error: str | None = None


@dataclass(frozen=True)
class Commit:
    """What rank 0 writes into the manifest besides the files."""

    parents: tuple[str, ...] = ()
    config_hash: str | None = None
    policy_version: int | None = None
    score: str | None = None


@dataclass(eq=False)
class CheckpointUpload:
    """Handed out by `Checkpoints.begin`. `add` and `commit` only queue: they return at once, whatever the store does.

    Attributes:
        folder: the checkpoint's address.
        manifest: set once the checkpoint exists (rank 0 only).
        failed: why it never will.
    """

    folder: S3Uri
    step: int
    rank: int
    world_size: int
    session: str
    queued: Callable[[], None]
    manifest: Manifest | None = None
    failed: Exception | None = None
    _files: list[LocalFile] = field(default_factory=list)
    _entries: dict[str, FileEntry] = field(default_factory=dict)
    _disposable: list[Path] = field(default_factory=list)
    _commit: Commit | None = None
    _part_written: bool = False

    def add(self, local_dir: Path, to: str, *, keep_local: bool = True) -> None:
        """Queues all files below `local_dir` as `to/…`. They must not change any more.

        With `keep_local=False` the folder is deleted once this rank's files are durable.
        Raises `InvalidName` for names that can't be stored, and `ValueError` after `commit`.
        """
        if self._commit is not None:
            raise ValueError(f"step {self.step} is committed already: add before commit")
        if to.partition("/")[0] == PARTS:
            raise InvalidName(f"{to}: the folder {PARTS} is reserved: choose another")
        files = tree(local_dir, to)
        twice = {file.path for file in self._files} & {file.path for file in files}
        if twice:
            raise ValueError(f"{min(twice)} is added twice to step {self.step}")
        self._files += files
        if not keep_local:
            self._disposable.append(local_dir)
        self.queued()

    def commit(
        self,
        *,
        parents: Sequence[str] = (),
        config_hash: str | None = None,
        policy_version: int | None = None,
        score: str | None = None,
    ) -> None:
        """Says that this rank has added everything. Every rank calls it; rank 0's arguments go into the manifest.

        `score` is a decimal, higher is better; retention keeps the best.
        """
        if self._commit is not None:
            raise ValueError(f"step {self.step} is committed already")
        # Checked here, where the caller can still see the mistake.
        Manifest(
            kind="checkpoint",
            step=self.step,
            parents=tuple(parents),
            config_hash=config_hash,
            policy_version=policy_version,
            score=score,
            files=(),
            time=now(),
        )
        self._commit = Commit(tuple(parents), config_hash, policy_version, score)
        self.queued()

    @property
    def pending_bytes(self) -> int:
        """What still lies on the local disk only."""
        return sum(file.source.stat().st_size for file in self._todo() if file.source.exists())

    @property
    def committed(self) -> bool:
        """`commit` was called: nothing more will be added."""
        return self._commit is not None

    @property
    def finished(self) -> bool:
        """Nothing is left to do for this rank."""
        if self.failed is not None:
            return True
        return self._part_written and (self.rank != 0 or self.manifest is not None)

    def _todo(self) -> list[LocalFile]:
        return [file for file in self._files if file.path not in self._entries]

    def advance(self, transfer: Transfer, insist: Insistence) -> bool:
        """Does the next piece of work, in the uploader's thread. False: it can only wait (for `commit` or other ranks).

        Raises `StorageUnavailable`, after which it may be called again, or what makes the checkpoint impossible.
        """
        if todo := self._todo():
            transfer.upload(
                todo, self.folder, insist=insist, done=lambda entry: self._entries.__setitem__(entry.path, entry)
            )
            return True
        if self._commit is None or self.finished:
            return False
        if not self._part_written:
            self._write_part(transfer.store, error=None)
            for folder in self._disposable:
                shutil.rmtree(folder, ignore_errors=True)
            return True
        return self._write_manifest(transfer.store, self._commit)

    def give_up(self, store: ObjectStore, error: Exception) -> None:
        """Records that this rank can't do its share, so that rank 0 does not wait for it."""
        self.failed = error
        self._write_part(store, error=f"{type(error).__name__}: {error}")

    def _write_part(self, store: ObjectStore, error: str | None) -> None:
        part = Part(
            session=self.session,
            rank=self.rank,
            world_size=self.world_size,
            files=() if error else tuple(self._entries.values()),
            error=error,
        )
        store.put(self._part_uri(self.rank), part.model_dump_json(by_alias=True).encode())
        self._part_written = True

    def _part_uri(self, rank: int) -> S3Uri:
        return self.folder / f"{PARTS}/rank-{rank:05d}.json"

    def _write_manifest(self, store: ObjectStore, commit: Commit) -> bool:
        parts = [self._read_part(store, rank) for rank in range(self.world_size)]
        for part in parts:
            if part and part.error:
                raise CheckpointFailed(f"{self.folder}: rank {part.rank} gave up: {part.error}")
        files: dict[str, FileEntry] = {}
        for part in parts:
            if part is None:
                return False
            for file in part.files:
                if files.setdefault(file.path, file) != file:
                    raise CheckpointFailed(
                        f"{self.folder}: {file.path} was written by two ranks with different content: "
                        "give each rank its own names"
                    )
        manifest = Manifest(
            kind="checkpoint",
            step=self.step,
            policy_version=commit.policy_version,
            config_hash=commit.config_hash,
            parents=commit.parents,
            score=commit.score,
            files=tuple(sorted(files.values(), key=lambda file: file.path)),
            time=now(),
        )
        self.manifest = write_manifest(store, self.folder, manifest)
        return True

    def _read_part(self, store: ObjectStore, rank: int) -> Part | None:
        try:
            part = Part.model_validate_json(store.read(self._part_uri(rank)))
        except (NotFound, ValidationError):
            return None
        return part if (part.session, part.world_size) == (self.session, self.world_size) else None


def write_manifest(store: ObjectStore, folder: S3Uri, manifest: Manifest) -> Manifest:
    """Makes `folder` exist. Raises `Conflict` if something else was committed there; the same again is no error."""
    try:
        store.put(folder / MANIFEST, manifest.to_json(), if_absent=True)
    except Conflict:
        # Either our own write whose answer was lost, or another writer's.
        present = Manifest.parse(store.read(folder / MANIFEST))
        if present.digest != manifest.digest:
            raise Conflict(
                f"{folder} was committed by another attempt with other content: let only one attempt of a job run"
            ) from None
        return present
    return manifest
