"""A sweep as a picture: losses or scores over the tried values, as SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from itertools import cycle
from typing import Protocol

_WIDTH, _HEIGHT, _LEFT, _TOP, _RIGHT, _BOTTOM = 640, 360, 64, 24, 120, 48
_COLOURS = ("#c2410c", "#1d4ed8", "#15803d", "#7e22ce", "#0e7490", "#a16207")


class Drawn(Protocol):
    """One candidate: the values it tries, the height of each line there, and whether it is the best."""

    @property
    def values(self) -> Mapping[str, str]: ...
    @property
    def lines(self) -> Mapping[str, float]: ...
    @property
    def winner(self) -> bool: ...


def svg(rows: Sequence[Drawn]) -> str:
    """Lines over the candidates, in their order; the winner is marked. Numbers on the axis if one parameter varies.

    Raises:
        ValueError: there are no rows.
    """
    if not rows:
        raise ValueError("a sweep without scores can't be drawn")
    places = _places(rows)
    heights = [height for row in rows for height in row.lines.values()]
    low, high = min(heights), max(heights)
    span = (high - low) or 1.0

    def y(height: float) -> float:
        return _TOP + (_HEIGHT - _TOP - _BOTTOM) * (high - height) / span

    size = f'viewBox="0 0 {_WIDTH} {_HEIGHT}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="12">',
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>',
    ]
    for step in range(5):
        at = low + span * step / 4
        parts.append(
            f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y(at):.1f}" y2="{y(at):.1f}" stroke="#e5e7eb"/>'
            f'<text x="{_LEFT - 8}" y="{y(at) + 4:.1f}" text-anchor="end">{at:.4g}</text>'
        )
    for row, x in zip(rows, places, strict=True):
        label = escape(", ".join(row.values.values()))
        parts.append(f'<text x="{x:.1f}" y="{_HEIGHT - _BOTTOM + 18}" text-anchor="middle">{label}</text>')
        if row.winner:
            parts.append(
                f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{_HEIGHT - _BOTTOM}" stroke="#16a34a" '
                f'stroke-dasharray="4"/>'
                f'<text x="{x:.1f}" y="{_TOP - 8}" text-anchor="middle" fill="#16a34a">best</text>'
            )
    for name, colour in zip(rows[0].lines, cycle(_COLOURS), strict=False):
        points = [(x, y(row.lines[name])) for row, x in zip(rows, places, strict=True)]
        line = " ".join(f"{x:.1f},{at:.1f}" for x, at in points)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{at:.1f}" r="3" fill="{colour}"/>' for x, at in points]
        x, at = points[-1]
        parts.append(f'<text x="{x + 10:.1f}" y="{at + 4:.1f}" fill="{colour}">{escape(name)}</text>')
    names = escape(", ".join(rows[0].values))
    parts.append(
        f'<text x="{(_LEFT + _WIDTH - _RIGHT) / 2}" y="{_HEIGHT - 10}" text-anchor="middle">{names}</text></svg>'
    )
    return "\n".join(parts) + "\n"


def _places(rows: Sequence[Drawn]) -> list[float]:
    """Where each candidate is: by its value if there is one parameter, else evenly."""
    width = _WIDTH - _LEFT - _RIGHT
    numbers = [
        float(next(iter(row.values.values()))) if len(row.values) == 1 else index for index, row in enumerate(rows)
    ]
    low, span = min(numbers), (max(numbers) - min(numbers)) or 1.0
    return [_LEFT + width * (number - low) / span for number in numbers]
