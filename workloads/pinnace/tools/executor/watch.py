"""What trees of processes use at this moment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pinnace.tools.executor.processes import Process, alive, below


@dataclass(frozen=True)
class Usage:
    """Sums over a tree."""

    processes: int = 0
    threads: int = 0
    resident: int = 0
    """Bytes; pages that are shared count in each process."""

    def __add__(self, other: Usage) -> Usage:
        return Usage(self.processes + other.processes, self.threads + other.threads, self.resident + other.resident)


def usage(root: int, table: Mapping[int, Process]) -> Usage:
    """Of `root` and those below it, without zombies."""
    every = [*alive(below(root, table)), *([table[root]] if root in table else [])]
    return Usage(len(every), sum(each.threads for each in every), sum(each.resident for each in every))
