"""Liveness and readiness: is anything still coming in, and is anything stuck?"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from threading import Lock


class Pulse:
    """When each watch was last heard of: an event, a bookmark or a list. Written by the event source's thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = Lock()
        self._heard: dict[str, float] = {}
        self._expected: dict[str, float] = {}

    def expect(self, paths: Iterable[str]) -> None:
        """The watches that must live from now on, as URL paths of the watched collections."""
        now = self._clock()
        with self._lock:
            self._expected = {path: self._expected.get(path, now) for path in paths}
            self._heard = {path: at for path, at in self._heard.items() if path in self._expected}

    def beat(self, path: str) -> None:
        with self._lock:
            if path in self._expected:
                self._heard[path] = self._clock()

    def ages(self) -> dict[str, float]:
        """Seconds since each expected watch was heard of, or since it was expected."""
        now = self._clock()
        with self._lock:
            return {path: now - self._heard.get(path, since) for path, since in self._expected.items()}

    def silent(self) -> list[str]:
        """Watches that were never heard of."""
        with self._lock:
            return [path for path in self._expected if path not in self._heard]


class Watchdog:
    """What /healthz and /readyz answer. A problem is one sentence that says what is stuck."""

    def __init__(
        self,
        *,
        pulse: Pulse,
        oldest_key: Callable[[], float],
        leads: Callable[[], bool],
        max_watch_age: float,
        max_key_age: float,
    ) -> None:
        self._pulse = pulse
        self._oldest_key = oldest_key
        self._leads = leads
        self._max_watch_age = max_watch_age
        self._max_key_age = max_key_age

    def dead(self) -> list[str]:
        """Why the process must be restarted; empty when it is alive."""
        problems = [
            f"nothing was heard on the watch of {path} for {age:.0f} s (limit {self._max_watch_age:.0f} s)"
            for path, age in sorted(self._pulse.ages().items())
            if age > self._max_watch_age
        ]
        age = self._oldest_key()
        if self._leads() and age > self._max_key_age:
            problems.append(f"the oldest key of the queue has waited {age:.0f} s (limit {self._max_key_age:.0f} s)")
        return problems

    def not_ready(self) -> list[str]:
        """Why progress reports should not come here yet; empty when they may."""
        ages = self._pulse.ages()
        waiting = [f"the watch of {path} has not started" for path in sorted(self._pulse.silent())]
        return self.dead() + (waiting if ages else ["the event source has not started"])
