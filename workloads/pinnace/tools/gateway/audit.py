"""Who called what, as JSON lines: no arguments, no results, no tokens."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import IO

_text = json.encoder.encode_basestring_ascii


class Audit:
    """Appends to a file, or to standard output for `-`. Lines are written every half second and at the end."""

    def __init__(self, target: str) -> None:
        self._lines: list[str] = []
        self._file: IO[str] | None = None
        if target == "-":
            self._file = sys.stdout
        elif target:
            self._file = Path(target).open("a", encoding="utf-8")  # noqa: SIM115 - open as long as the gateway runs

    def call(
        self, *, request: str, tenant: str, lease: str, tool: str, outcome: str, ms: float, attempts: int, trace: str
    ) -> None:
        """One call has ended."""
        if self._file is None:
            return
        # By hand: the encoder would take 0.02 ms of each call.
        self._lines.append(
            f'{{"time": {time.time()}, "event": "call", "request": {_text(request)}, "tenant": {_text(tenant)}, '
            f'"lease": {_text(lease)}, "tool": {_text(tool)}, "outcome": {_text(outcome)}, "ms": {ms:.2f}, '
            f'"attempts": {attempts}, "trace": {_text(trace)}}}'
        )

    def note(self, event: str, **facts: str | int) -> None:
        """Anything else: a lease given or ended, a request refused."""
        if self._file is not None:
            self._lines.append(json.dumps({"time": time.time(), "event": event, **facts}))

    def flush(self) -> None:
        if self._file is not None and self._lines:
            lines, self._lines = self._lines, []
            self._file.write("\n".join(lines) + "\n")
            self._file.flush()
