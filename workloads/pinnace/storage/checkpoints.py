"""The checkpoints of one run: begin, find, restore, keep and delete."""

from __future__ import annotations

import logging
import re
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from pinnace_operator.api.status import CheckpointRef

from pinnace.storage.errors import CheckpointFailed, DamagedFile, Incomplete, NotFound, StorageUnavailable
from pinnace.storage.manifest import MANIFEST, Manifest, select
from pinnace.storage.objects import StoredObject
from pinnace.storage.retention import best_steps, superseded
from pinnace.storage.transfer import Transfer
from pinnace.storage.upload import CheckpointUpload
from pinnace.storage.uploader import Uploader
from pinnace.storage.uri import S3Uri

log = logging.getLogger(__name__)
_STEP = re.compile(r"step-(\d{8,})")


@dataclass(frozen=True)
class Committed:
    """A checkpoint has become durable."""

    checkpoint: Checkpoint


@dataclass(frozen=True)
class Delayed:
    """The store does not take a checkpoint; training goes on and the upload is repeated."""

    step: int
    reason: str


@dataclass(frozen=True)
class Failed:
    """A checkpoint will never exist."""

    step: int
    reason: str


@dataclass(frozen=True)
class Skipped:
    """A checkpoint was found that can't be used: unfinished or damaged."""

    step: int
    reason: str


Event = Committed | Delayed | Failed | Skipped


def _nobody(_: Event) -> None:
    """Nobody listens."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that exists: `uri` is its folder, `digest` that of its manifest, `time` RFC 3339."""

    step: int
    uri: str
    digest: str
    time: str
    manifest: Manifest
    _of: Checkpoints = field(repr=False, compare=False)

    @property
    def ref(self) -> CheckpointRef:
        """As the operator's API writes it."""
        return CheckpointRef.model_validate(
            {"step": self.step, "uri": self.uri, "digest": self.digest, "time": self.time}
        )

    def download(self, dest: Path, only: Iterable[str] = ()) -> Path:
        """Downloads the files (those below `only`, relative to the checkpoint) to `dest`, verified; returns `dest`.

        Raises:
            DamagedFile: naming the file that is missing or differs.
            NotFound: `only` names nothing, or retention removed the checkpoint meanwhile: ask `newest()` again.
            DiskFull, StorageUnavailable
        """
        return self._of.download(self, dest, only)


class Checkpoints:
    """All checkpoints below one folder. One process writes a rank's share; any number may read.

    Args:
        transfer: moves files.
        folder: `…/checkpoints`.
        session: the attempt; ranks of one attempt use the same, so that a dead attempt's files are never mixed in.
        listener: told what happens, from the background thread; must not raise.
        retry_cap: longest wait between two attempts, in seconds.
    """

    def __init__(
        self,
        transfer: Transfer,
        folder: S3Uri,
        *,
        session: str = "0",
        listener: Callable[[Event], None] = _nobody,
        retry_cap: float = 30,
    ) -> None:
        self.folder = folder
        self.damaged: list[Skipped] = []
        self.failures: list[Failed] = []
        self._transfer = transfer
        self._store = transfer.store
        self._session = session
        self._listener = listener
        self._uploader = Uploader(transfer, retry_cap=retry_cap, finished=self._finished, delayed=self._delayed)
        self._reading: Counter[int] = Counter()
        self._reading_lock = threading.Lock()

    # Writing

    def begin(self, step: int, *, rank: int = 0, world_size: int = 1) -> CheckpointUpload:
        """Starts the upload of one rank's share of a checkpoint. Never waits for the store."""
        if not 0 <= rank < world_size or step < 0:
            raise ValueError(f"step {step}, rank {rank} of {world_size}: want step ≥ 0 and 0 ≤ rank < world size")
        upload = CheckpointUpload(self._at(step), step, rank, world_size, self._session, self._uploader.wake)
        self._uploader.submit(upload)
        return upload

    @property
    def pending_bytes(self) -> int:
        """Bytes that are queued and not durable yet."""
        return sum(upload.pending_bytes for upload in self._uploader.active)

    def wait(self, timeout: float | None = None) -> None:
        """Until everything committed is durable and retention is done.

        Raises:
            StorageUnavailable: not within `timeout` seconds; says what it hangs on. The uploads go on.
            CheckpointFailed and other StorageErrors: a checkpoint can't be completed (raised once).
        """
        self._uploader.wait(timeout)
        failures, self.failures = self.failures, []
        if failures:
            raise CheckpointFailed("; ".join(f"checkpoint {failure.step}: {failure.reason}" for failure in failures))

    def rewind(self, to: Checkpoint | None) -> list[int]:
        """Prepares a run that continues from `to` (None: from nothing). Rank 0 calls it before any rank saves.

        Removes what an earlier attempt left behind: unfinished checkpoints, those after `to` (the caller found them
        damaged), and unfinished multipart uploads. Returns the steps removed.
        """
        steps = self._steps()
        committed = {step: found for step, found in steps.items() if self._has_manifest(found)}
        keep = {step for step in committed if to is not None and step <= to.step}
        doomed = sorted(set(steps) - keep)
        for step in doomed:
            self._delete_manifest(step)
            self._delete_files(steps[step])
        for uri, upload_id in self._store.unfinished_parts(self.folder):
            self._store.abort_parts(uri, upload_id)
        return doomed

    def retain(self, *, last: int, best: int = 0, purge: bool = False) -> None:
        """Queues retention behind the uploads and returns at once: keeps the newest `last` and the `best` by score.

        Manifests go first: from then on the checkpoint does not exist. Its files go in the next pass (or at once with
        `purge`, for the end of a run), so that a reader who has the manifest can finish.
        """
        self._uploader.afterwards(lambda: self._apply_retention(last, best, purge=purge))

    def _apply_retention(self, last: int, best: int, *, purge: bool) -> None:
        steps = self._steps()
        manifests = {step: manifest for step in steps if (manifest := self._manifest_or_none(step)) is not None}
        if not manifests:
            return
        busy = {upload.step for upload in self._uploader.active} | {
            step for step, readers in self._reading.items() if readers
        }
        doomed = superseded(manifests.values(), last=last, best=best, protected=busy)
        for step in doomed:
            self._delete_manifest(step)
        # Without a manifest and older than the newest: condemned by the last pass, or left by a dead attempt.
        leftover = {step for step, found in steps.items() if step < max(manifests) and not self._has_manifest(found)}
        for step in sorted((leftover | set(doomed if purge else ())) - busy):
            self._delete_files(steps[step])

    # Reading

    def newest(self, *, skip: Collection[int] = ()) -> Checkpoint | None:
        """The newest checkpoint that is complete, by its manifest and the sizes of its files; None if there is none.

        `damaged` then lists what was skipped and why. Content is verified by `download`; after a `DamagedFile` ask
        again with the step in `skip`.
        """
        self.damaged = []
        for step, found in sorted(self._steps().items(), reverse=True):
            if step in skip:
                continue
            try:
                return self._open(step, found)
            except (Incomplete, DamagedFile, NotFound) as error:
                skipped = Skipped(step, str(error))
                self.damaged.append(skipped)
                self._listener(skipped)
        return None

    def restore(self, dest: Path, only: Iterable[str] = ()) -> Checkpoint | None:
        """Downloads the newest checkpoint that verifies, falling back to older ones; None if there is none.

        For one process. With several, let one choose and the others use `at`.
        """
        tried: list[Skipped] = []
        wanted = tuple(only)
        while True:
            checkpoint = self.newest(skip={skipped.step for skipped in tried})
            if checkpoint is not None:
                try:
                    checkpoint.download(dest, wanted)
                except (DamagedFile, NotFound) as error:
                    tried.append(Skipped(checkpoint.step, str(error)))
                    self._listener(tried[-1])
                    # What did verify must not stand beside the files of an older checkpoint.
                    for file in select(checkpoint.manifest.files, wanted):
                        (dest / file.path).unlink(missing_ok=True)
                    continue
            self.damaged = sorted({*tried, *self.damaged}, key=lambda skipped: -skipped.step)
            return checkpoint

    def at(self, step: int) -> Checkpoint:
        """The checkpoint of one step. Raises `NotFound`, `Incomplete` or `DamagedFile`."""
        found = list(self._store.list(self._at(step)))
        if not found:
            raise NotFound(f"{self._at(step)}: no such checkpoint; there are steps {sorted(self._steps()) or 'none'}")
        return self._open(step, found)

    def all(self) -> list[Checkpoint]:
        """All checkpoints that exist, oldest first; `damaged` lists the rest."""
        checkpoints, self.damaged = [], []
        for step, found in sorted(self._steps().items()):
            try:
                checkpoints.append(self._open(step, found))
            except (Incomplete, DamagedFile, NotFound) as error:
                self.damaged.append(Skipped(step, str(error)))
        return checkpoints

    def best(self) -> Checkpoint | None:
        """The checkpoint with the highest score, the newest one if none has a score."""
        checkpoints = {checkpoint.step: checkpoint for checkpoint in self.all()}
        steps = best_steps((checkpoint.manifest for checkpoint in checkpoints.values()), 1) or sorted(checkpoints)[-1:]
        return checkpoints[steps[0]] if steps else None

    def download(self, checkpoint: Checkpoint, dest: Path, only: Iterable[str] = ()) -> Path:
        """See `Checkpoint.download`."""
        wanted = tuple(only)
        files = select(checkpoint.manifest.files, wanted)
        if wanted and not files:
            raise NotFound(f"{checkpoint.uri} has no files below {', '.join(wanted)}")
        with self._being_read(checkpoint.step):
            try:
                self._transfer.download(files, S3Uri.parse(checkpoint.uri), dest)
            except DamagedFile as error:
                if self._manifest_or_none(checkpoint.step) is None:
                    raise NotFound(f"{checkpoint.uri} was removed while it was read: use newest() again") from error
                raise
        return dest

    # Inside

    @contextmanager
    def _being_read(self, step: int) -> Iterator[None]:
        with self._reading_lock:
            self._reading[step] += 1
        try:
            yield
        finally:
            with self._reading_lock:
                self._reading[step] -= 1

    def _at(self, step: int) -> S3Uri:
        return self.folder / f"step-{step:08d}"

    def _steps(self) -> dict[int, list[StoredObject]]:
        """Everything stored, by step: one request for 1,000 files."""
        steps: dict[int, list[StoredObject]] = {}
        for found in self._store.list(self.folder):
            if match := _STEP.fullmatch(self.folder.relative(found.uri).partition("/")[0]):
                steps.setdefault(int(match[1]), []).append(found)
        return steps

    def _has_manifest(self, found: Iterable[StoredObject]) -> bool:
        return any(one.uri.name == MANIFEST and _STEP.fullmatch(one.uri.key.split("/")[-2]) for one in found)

    def _open(self, step: int, found: list[StoredObject]) -> Checkpoint:
        folder = self._at(step)
        sizes = {folder.relative(one.uri): one.size for one in found}
        if MANIFEST not in sizes:
            raise Incomplete(f"{folder} has no {MANIFEST}: its upload did not finish")
        manifest = self._manifest(step)
        for file in manifest.files:
            if sizes.get(file.path) != file.size:
                present = sizes.get(file.path)
                raise DamagedFile(
                    file.path,
                    f"is missing ({folder})"
                    if present is None
                    else f"has {present} bytes, the manifest says {file.size} ({folder})",
                )
        return Checkpoint(step, str(folder), manifest.digest, manifest.time, manifest, self)

    def _manifest(self, step: int) -> Manifest:
        manifest = Manifest.parse(self._store.read(self._at(step) / MANIFEST))
        if manifest.kind != "checkpoint" or manifest.step != step:
            raise DamagedFile(MANIFEST, f"is of {manifest.kind} step {manifest.step} ({self._at(step)})")
        return manifest

    def _manifest_or_none(self, step: int) -> Manifest | None:
        try:
            return self._manifest(step)
        except (NotFound, DamagedFile):
            return None

    def _delete_manifest(self, step: int) -> None:
        self._store.delete([self._at(step) / MANIFEST])

    def _delete_files(self, found: Iterable[StoredObject]) -> None:
        self._store.delete(one.uri for one in found)

    def _finished(self, upload: CheckpointUpload) -> None:
        if upload.failed is not None:
            failure = Failed(upload.step, f"{type(upload.failed).__name__}: {upload.failed}")
            self.failures.append(failure)
            self._tell(failure)
        elif upload.manifest is not None:
            manifest = upload.manifest
            self._tell(
                Committed(Checkpoint(upload.step, str(upload.folder), manifest.digest, manifest.time, manifest, self))
            )

    def _delayed(self, upload: CheckpointUpload, error: StorageUnavailable) -> None:
        self._tell(Delayed(upload.step, str(error)))

    def _tell(self, event: Event) -> None:
        try:
            self._listener(event)
        except Exception:
            log.exception("the listener of %s failed", self.folder)
