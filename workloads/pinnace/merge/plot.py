"""A sweep as a picture: special and general loss over the tried values, as SVG."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from .sweep import Row

_WIDTH, _HEIGHT, _LEFT, _TOP, _RIGHT, _BOTTOM = 640, 360, 64, 24, 120, 48
_COLOURS = {"special": "#c2410c", "general": "#1d4ed8"}


def svg(rows: Sequence[Row]) -> str:
    """Two lines over the candidates, in their order; the winner is marked. Numbers on the axis if one parameter varies.

    Raises:
        ValueError: there are no rows.
    """
    if not rows:
        raise ValueError("a sweep without scores can't be drawn")
    places = _places(rows)
    losses = [loss for row in rows for loss in (row.score.special, row.score.general)]
    low, high = min(losses), max(losses)
    span = (high - low) or 1.0

    def y(loss: float) -> float:
        return _TOP + (_HEIGHT - _TOP - _BOTTOM) * (high - loss) / span

    size = f'viewBox="0 0 {_WIDTH} {_HEIGHT}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="12">',
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>',
    ]
    for step in range(5):
        loss = low + span * step / 4
        parts.append(
            f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y(loss):.1f}" y2="{y(loss):.1f}" stroke="#e5e7eb"/>'
            f'<text x="{_LEFT - 8}" y="{y(loss) + 4:.1f}" text-anchor="end">{loss:.4g}</text>'
        )
    for row, x in zip(rows, places, strict=True):
        label = escape(", ".join(row.values.values()) or row.candidate)
        parts.append(f'<text x="{x:.1f}" y="{_HEIGHT - _BOTTOM + 18}" text-anchor="middle">{label}</text>')
        if row.winner:
            parts.append(
                f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{_HEIGHT - _BOTTOM}" stroke="#16a34a" '
                f'stroke-dasharray="4"/>'
                f'<text x="{x:.1f}" y="{_TOP - 8}" text-anchor="middle" fill="#16a34a">best</text>'
            )
    for name, colour in _COLOURS.items():
        points = [(x, y(getattr(row.score, name))) for row, x in zip(rows, places, strict=True)]
        line = " ".join(f"{x:.1f},{at:.1f}" for x, at in points)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{at:.1f}" r="3" fill="{colour}"/>' for x, at in points]
        x, at = points[-1]
        parts.append(f'<text x="{x + 10:.1f}" y="{at + 4:.1f}" fill="{colour}">{name} loss</text>')
    names = escape(", ".join(rows[0].values))
    parts.append(
        f'<text x="{(_LEFT + _WIDTH - _RIGHT) / 2}" y="{_HEIGHT - 10}" text-anchor="middle">{names}</text></svg>'
    )
    return "\n".join(parts) + "\n"


def _places(rows: Sequence[Row]) -> list[float]:
    """Where each candidate is: by its value if there is one parameter, else evenly."""
    width = _WIDTH - _LEFT - _RIGHT
    numbers = [
        float(next(iter(row.values.values()))) if len(row.values) == 1 else index for index, row in enumerate(rows)
    ]
    low, span = min(numbers), (max(numbers) - min(numbers)) or 1.0
    return [_LEFT + width * (number - low) / span for number in numbers]
