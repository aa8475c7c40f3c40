"""Files of a run that grow while it goes on, in S3: a copy every few seconds, and the whole at the end."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping

from pinnace.storage.errors import StorageUnavailable
from pinnace.storage.storage import RunDirectory


class History:
    """`history/<name>` for each of `files`: written at most every `every` seconds once `changed` was called."""

    def __init__(self, run: RunDirectory, files: Mapping[str, Callable[[], bytes]], *, every: float = 15) -> None:
        """`files` give their whole content, from a thread."""
        self._run, self._files, self._every = run, files, every
        self._changed = threading.Event()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._write_often, name="history", daemon=True)
        self._thread.start()

    def changed(self) -> None:
        """There is something new; returns at once."""
        self._changed.set()

    def close(self) -> None:
        """Writes what is new; waits for a store that is away."""
        self._ended.set()
        self._changed.set()
        self._thread.join()

    def _write_often(self) -> None:
        while True:
            self._changed.wait()
            self._changed.clear()
            try:
                for name, content in self._files.items():
                    if found := content():
                        self._run.write_history(name, found)
            except StorageUnavailable:
                self._changed.set()  # the next round tries again, with everything since
            if self._ended.is_set() and not self._changed.is_set():
                return
            self._ended.wait(self._every)
