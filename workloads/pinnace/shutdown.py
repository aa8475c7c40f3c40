"""SIGTERM as a flag: the stage saves at the next step border and ends with exit code 85."""

from __future__ import annotations

import signal
import threading
from time import monotonic
from types import FrameType


class Shutdown:
    """Set by SIGTERM (once `install` was called, in the main thread) or by `request`.

    A stage looks at `requested` after every step. When it is set, it saves, commits, waits for
    `checkpoints.wait(shutdown.seconds_left())` and raises `pinnace.outcome.Checkpointed`.
    """

    def __init__(self, *, grace_seconds: float = 30) -> None:
        self._grace = grace_seconds
        self._flag = threading.Event()
        self._since: float | None = None

    def install(self) -> Shutdown:
        """Takes over SIGTERM. Raises `ValueError` outside the main thread."""
        signal.signal(signal.SIGTERM, self._on_signal)
        return self

    def _on_signal(self, _signal: int, _frame: FrameType | None) -> None:
        self.request()

    def request(self) -> None:
        """Asks for the end; asking twice changes nothing."""
        if self._since is None:
            self._since = monotonic()
        self._flag.set()

    @property
    def requested(self) -> bool:
        """True from the first request on."""
        return self._flag.is_set()

    def wait(self, timeout: float | None = None) -> bool:
        """Until it is requested; False after `timeout` seconds."""
        return self._flag.wait(timeout)

    def seconds_left(self) -> float:
        """What is left of the grace period; all of it before a request, 0 when it is over."""
        return self._grace if self._since is None else max(0.0, self._since + self._grace - monotonic())
