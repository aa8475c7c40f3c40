"""The report as one self-contained HTML file: no network, no other file, every text escaped."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2
from markupsafe import Markup

from pinnace.agent import Event

from ..intervals import Comparison
from . import svg
from .summary import AttemptResult, ItemResult, Score, Summary
from .timeline import Entry, timeline

Trajectories = Callable[[Summary, str, int], Sequence[Event]]
"""Events of (summary, item, attempt); empty: none to show."""
_TEMPLATE = Path(__file__).with_name("page.html.jinja")
_MOST_BYTES = 64 << 20


@dataclass(frozen=True)
class Compared:
    """Two runs of one benchmark."""

    benchmark: str
    first: str
    second: str
    result: Comparison


def render(
    summaries: Sequence[Summary],
    *,
    title: str = "Evaluation",
    trajectories: Trajectories = lambda *_: (),
    comparisons: Sequence[Compared] = (),
    most_bytes: int = _MOST_BYTES,
) -> str:
    """The page. Once its trajectories have `most_bytes` characters, the others are only named."""
    left = most_bytes

    def entries(summary: Summary, item: ItemResult, attempt: AttemptResult) -> list[Entry]:
        nonlocal left
        if left <= 0 or attempt.verdict == "unfinished":
            return []
        shown = timeline(trajectories(summary, item.item, attempt.attempt))
        left -= sum(len(entry.text) + len(entry.raw) for entry in shown)
        return shown

    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    environment.filters["percent"] = _percent
    environment.filters["points"] = lambda value: f"{100 * value:+.1f}"
    template = environment.from_string(_TEMPLATE.read_text())
    return template.render(
        title=title,
        summaries=summaries,
        comparisons=comparisons,
        entries=entries,
        interval=_interval,
        curve=_curve,
        where=lambda _, item, attempt: f", item {item.item}, attempt {attempt.attempt}",
    )


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f} %"


def _interval(score: Score) -> Markup:
    return Markup(svg.interval(score.value, score.low, score.high))  # noqa: S704 - numbers only


def _curve(summary: Summary) -> Markup:
    lines: Mapping[str, Mapping[int, float | None]] = {"pass@k": summary.pass_at, "pass^k": summary.pass_all}
    return Markup(svg.curves(lines))  # noqa: S704 - numbers and fixed names only
