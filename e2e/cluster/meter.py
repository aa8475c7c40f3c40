"""Progress that is a bar on a terminal and a line now and then in a log."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

LOG_EVERY = 20.0


class Meter:
    """Shows how far a long step is, on what, and how long it still takes."""

    def __init__(self, console: Console, title: str, total: int | None = None) -> None:
        self._console, self._title, self._total = console, title, total
        self._start = self._last = time.monotonic()
        columns = [SpinnerColumn(), TextColumn("{task.description}"), BarColumn(bar_width=24), TimeElapsedColumn()]
        if total:
            columns += [TextColumn("left"), TimeRemainingColumn(compact=True)]
        columns.append(TextColumn("[dim]{task.fields[item]}"))
        self._bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._task = self._bar.add_task(title, total=total, item="")

    def __enter__(self) -> Self:
        self._bar.start()
        if not self._console.is_terminal:
            self._console.print(self._title)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def show(self, done: int, item: str) -> None:
        """`done` of `total` units are behind us and `item` is in work."""
        self._bar.update(self._task, completed=done, item=item[-60:])
        now = time.monotonic()
        if self._console.is_terminal or now - self._last < LOG_EVERY:
            return
        self._last = now
        spent = now - self._start
        share = f" {100 * done / self._total:.0f} %" if self._total else ""
        left = f", about {spent / done * max(0, self._total - done):.0f} s left" if self._total and done else ""
        self._console.print(f"{self._title}{share} after {spent:.0f} s{left}: {item}", highlight=False)
