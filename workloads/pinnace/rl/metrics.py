"""What a run tells about itself: a line of JSON a step, and who waits for what."""

from __future__ import annotations

import json
import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

METRICS = "metrics.jsonl"


class Clock:
    """Where a process's time goes: `work` except for what was spent inside `waiting(for_what)`.

    Where many things go on in one process, each counts with the `share` of the process that it is.
    """

    def __init__(self, *, now: Callable[[], float] = time.monotonic) -> None:
        self._now, self._began = now, now()
        self._waited: defaultdict[str, float] = defaultdict(float)

    @contextmanager
    def waiting(self, for_what: str, *, share: float = 1.0) -> Iterator[None]:
        began = self._now()
        try:
            yield
        finally:
            self._waited[for_what] += (self._now() - began) * share

    def shares(self) -> dict[str, float]:
        """Shares of the time since the clock was made: `work`, and each thing that was waited for."""
        total = max(self._now() - self._began, 1e-9)
        waits = {name: seconds / total for name, seconds in self._waited.items()}
        return {"work": max(0.0, 1 - math.fsum(waits.values())), **waits}

    def values(self) -> dict[str, float]:
        """The shares as metrics."""
        return {f"share_{name}": share for name, share in self.shares().items()}


Values = Mapping[str, float]


def labelled(name: str, label: str, values: Values) -> dict[str, float]:
    """`{"a": 1}` as `{"<name>.<label>.a": 1}`, for `Exposition`."""
    return {f"{name}.{label}.{key}": value for key, value in values.items()}


class JsonLines:
    """`metrics.jsonl`: one line a step. `before`: the file as it was at the checkpoint that training goes on from."""

    def __init__(self, path: Path, before: Path | None) -> None:
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(before.read_text() if before else "")

    def last(self, name: str) -> Any:
        """The value of the newest step; None before the first."""
        lines = self._path.read_text().splitlines()
        return json.loads(lines[-1])[name] if lines else None

    def write(self, step: int, values: Values) -> None:
        with self._path.open("a") as file:
            file.write(json.dumps({"step": step, "time": round(time.time(), 3), **values}) + "\n")
