"""Progress a person enjoys on a terminal and a log can hold: one line a stage, with its time."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console

Report = Callable[[str], None]


@dataclass
class Stages:
    """Prints each stage as it ends and remembers the times for the summary."""

    console: Console = field(
        default_factory=lambda: Console(highlight=False, width=None if sys.stdout.isatty() else 140)
    )
    times: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, title: str) -> Iterator[Report]:
        """Run a block as one stage; call the yielded function to say what is happening in it."""
        started = time.monotonic()
        if self.console.is_terminal:
            with self.console.status(f"{title} …") as status:
                yield lambda detail: status.update(f"{title}: [dim]{detail}[/]  {time.monotonic() - started:.0f} s")
        else:
            self.console.print(f"… {title}")
            yield self._lines()
        self.times[title] = time.monotonic() - started
        self.console.print(f"[green]✓[/] {title} [dim]{self.times[title]:.1f} s[/]")

    def _lines(self) -> Report:
        last: list[str] = []

        def report(detail: str) -> None:
            if detail not in last[-1:]:
                last.append(detail)
                self.console.print(f"    {detail}")

        return report
