"""Waiting longer and longer, with jitter."""

from __future__ import annotations

import random
import threading


class Backoff:
    """Exponential back-off: `first` seconds, doubled up to `cap`, each wait shortened by up to a half at random."""

    def __init__(self, *, first: float, cap: float) -> None:
        self._first = first
        self._cap = cap
        self.tries = 1

    def sleep(self, wake: threading.Event | None = None) -> None:
        """Waits, at most until `wake` is set."""
        seconds = min(self._cap, self._first * 2 ** min(self.tries - 1, 30)) * random.uniform(0.5, 1)  # noqa: S311 - jitter, not a secret
        self.tries += 1
        (wake or threading.Event()).wait(seconds)

    def reset(self) -> None:
        """Starts again with the first, short wait."""
        self.tries = 1
