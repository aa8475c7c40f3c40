"""Small models, merges by mergekit's configurations, mergekit itself, and the tables that are printed at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from e2e.merging import Shape, family
from e2e.oracles.mergekit import Mergekit, mergekit

deviations: dict[str, dict[str, float]] = {}
"""By method and layout, the greatest distance from mergekit in units in the last place of the output's dtype."""
kills: list[tuple[str, int, str]] = []
"""What was merged, how often it was killed, and what became of it."""

torch.set_num_threads(1)  # as the engine does; two processors are shared with S3 and mergekit


@pytest.fixture(scope="session")
def oracle() -> Iterator[Mergekit]:
    """mergekit in a process of its own."""
    with mergekit() as running:
        yield running


@pytest.fixture(scope="session")
def families(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Folders of a base and three models in a dtype, made once."""
    made: dict[torch.dtype, list[Path]] = {}

    def get(dtype: torch.dtype = torch.bfloat16) -> list[Path]:
        if dtype not in made:
            root = tmp_path_factory.mktemp(str(dtype).removeprefix("torch."))
            made[dtype] = family(root, Shape(), dtype=dtype, models=3)
        return made[dtype]

    return get


@pytest.fixture(scope="session")
def deviates() -> Callable[[str, str, float], None]:
    """Notes a distance from mergekit."""

    def note(method: str, layout: str, ulps: float) -> None:
        row = deviations.setdefault(method, {})
        row[layout] = max(row.get(layout, 0.0), ulps)

    return note


@pytest.fixture(scope="session")
def killed() -> Callable[[str, int, str], None]:
    """Notes a merge that was killed and went on."""
    return lambda what, count, end: kills.append((what, count, end))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if deviations:
        terminalreporter.section("greatest distance from mergekit, in units in the last place of the output's dtype")
        layouts = sorted({layout for row in deviations.values() for layout in row})
        _rows(terminalreporter, ["method", *layouts], [
            [method, *(f"{row[layout]:.2g}" if layout in row else "" for layout in layouts)]
            for method, row in sorted(deviations.items())
        ])  # fmt: skip
    if kills:
        terminalreporter.section("merges killed with -9 that went on")
        _rows(terminalreporter, ["what", "kills", "end"], [[what, str(count), end] for what, count, end in kills])


def _rows(reporter: pytest.TerminalReporter, head: list[str], rows: list[list[str]]) -> None:
    """As Markdown, for docs/merge.md."""
    for row in (head, ["---"] * len(head), *rows):
        reporter.write_line(f"| {' | '.join(row)} |")
