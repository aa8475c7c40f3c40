"""The background thread that makes checkpoints durable, in order, however long the store is away."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from time import monotonic

from pinnace.storage.backoff import Backoff
from pinnace.storage.errors import StorageUnavailable
from pinnace.storage.insistence import Insistence
from pinnace.storage.transfer import Transfer
from pinnace.storage.upload import CheckpointUpload

log = logging.getLogger(__name__)


class Uploader:
    """Works through uploads, first come first served, then through housekeeping (retention).

    Only a local fault or a conflict fails an upload; anything the store does is retried for ever.

    Args:
        transfer: moves the files.
        retry_cap: longest wait between two attempts, and between two looks for other ranks' parts, in seconds.
        finished: called from the thread with each upload once its checkpoint exists or can't exist.
        delayed: called from the thread, once an outage, with the upload and the reason.
    """

    def __init__(
        self,
        transfer: Transfer,
        *,
        retry_cap: float,
        finished: Callable[[CheckpointUpload], None],
        delayed: Callable[[CheckpointUpload, StorageUnavailable], None],
    ) -> None:
        self._transfer = transfer
        self._retry_cap = retry_cap
        self._finished = finished
        self._delayed = delayed
        self._uploads: list[CheckpointUpload] = []
        self._housekeeping: Callable[[], None] | None = None
        self._before_housekeeping: set[CheckpointUpload] = set()
        self._changed = threading.Condition()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._trouble: StorageUnavailable | None = None
        self._insist = Insistence(give_up_after=None, cap=retry_cap, on_trouble=self._note)

    def submit(self, upload: CheckpointUpload) -> None:
        """Queues an upload."""
        with self._changed:
            self._uploads.append(upload)
        self.wake()

    def afterwards(self, housekeeping: Callable[[], None]) -> None:
        """Runs this once all that is committed now is durable; a later call replaces one that has not run yet."""
        with self._changed:
            self._housekeeping = housekeeping
            self._before_housekeeping = self._committed()
        self.wake()

    def wake(self) -> None:
        """Makes the thread look for work."""
        with self._changed:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="checkpoint-upload", daemon=True)
                self._thread.start()
        self._wake.set()

    def _committed(self) -> set[CheckpointUpload]:
        return {upload for upload in self._uploads if upload.committed}

    @property
    def active(self) -> list[CheckpointUpload]:
        """Uploads that are not finished."""
        with self._changed:
            return list(self._uploads)

    def wait(self, timeout: float | None) -> None:
        """Until everything submitted and committed is done.

        Raises `StorageUnavailable` with the last trouble after `timeout` seconds.
        """
        deadline = None if timeout is None else monotonic() + timeout
        with self._changed:
            while self._committed() or self._housekeeping:
                rest = None if deadline is None else deadline - monotonic()
                if rest is not None and rest <= 0:
                    steps = ", ".join(str(upload.step) for upload in self._uploads if upload.committed)
                    cause = self._trouble or "the upload is slow, or other ranks have not finished"
                    raise StorageUnavailable(
                        f"after {timeout:g} s not durable: steps {steps or 'none (retention only)'}: {cause}",
                        transient=True,
                    )
                self._changed.wait(rest)

    def _run(self) -> None:
        backoff = Backoff(first=min(0.5, self._retry_cap), cap=self._retry_cap)
        while True:
            self._wake.clear()
            # More work after work; the longer nothing can be done, the rarer the looks.
            if self._round():
                backoff.reset()
            elif self.active or self._housekeeping:
                backoff.sleep(self._wake)
            else:
                backoff.reset()
                self._wake.wait()

    def _round(self) -> bool:
        """One attempt at everything; True if anything moved on."""
        worked = False
        for upload in self.active:
            try:
                while upload.advance(self._transfer, self._insist):
                    worked = True
                self._trouble = None
            except StorageUnavailable as error:
                self._note(error)
                # Order matters: what was saved first becomes durable first.
                return worked
            except Exception as error:  # noqa: BLE001 - training must go on; wait() raises it
                self._fail(upload, error)
            if upload.finished:
                worked = True
                self._finished(upload)
                with self._changed:
                    self._uploads.remove(upload)
                    self._changed.notify_all()
        return self._keep_house() or worked

    def _note(self, error: StorageUnavailable) -> None:
        if self._trouble is None and (uploads := self.active):
            log.warning("checkpoint %d is delayed: %s", uploads[0].step, error)
            self._delayed(uploads[0], error)
        self._trouble = error

    def _fail(self, upload: CheckpointUpload, error: Exception) -> None:
        log.error("checkpoint %d can't be completed: %s: %s", upload.step, type(error).__name__, error)
        upload.failed = error
        if upload.world_size > 1:
            try:
                upload.give_up(self._transfer.store, error)
            except StorageUnavailable as unavailable:
                log.warning("could not tell the other ranks: %s", unavailable)

    def _keep_house(self) -> bool:
        with self._changed:
            housekeeping = self._housekeeping
            if housekeeping is None or not self._before_housekeeping.isdisjoint(self._uploads):
                return False
        try:
            housekeeping()
        except StorageUnavailable as error:
            log.warning("retention is put off: %s", error)
            self._trouble = error
            return False
        with self._changed:
            if self._housekeeping is housekeeping:
                self._housekeeping = None
            self._changed.notify_all()
        return True
