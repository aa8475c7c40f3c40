"""Small pictures as inline SVG: an interval on a scale, and pass@k over k."""

from __future__ import annotations

import math
from collections.abc import Mapping

_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP = 420, 200, 44, 28, 12


def interval(value: float, low: float, high: float, *, width: int = 240) -> str:
    """A score in [0, 1] with its interval, on a line from 0 to 100 %."""
    x, start, end = (round(each * (width - 12) + 6, 1) for each in (value, low, high))
    return (
        f'<svg class="interval" width="{width}" height="18" viewBox="0 0 {width} 18" role="img" '
        f'aria-label="{100 * value:.1f} %, from {100 * low:.1f} to {100 * high:.1f}">'
        f'<line x1="6" y1="9" x2="{width - 6}" y2="9" class="axis"/>'
        f'<line x1="{start}" y1="9" x2="{end}" y2="9" class="reach"/>'
        f'<circle cx="{x}" cy="9" r="4.5" class="dot"/></svg>'
    )


def curves(lines: Mapping[str, Mapping[int, float | None]]) -> str:
    """Lines over k (logarithmic), each a name and {k: share or None}; undefined points are left out; "" for one k."""
    ks = sorted({k for points in lines.values() for k, value in points.items() if value is not None})
    if len(ks) < 2:
        return ""
    span = math.log2(ks[-1]) - math.log2(ks[0]) or 1

    def at(k: int, share: float) -> tuple[float, float]:
        x = _LEFT + (math.log2(k) - math.log2(ks[0])) / span * (_WIDTH - _LEFT - 70)
        return round(x, 1), round(_TOP + (1 - share) * (_HEIGHT - _TOP - _BOTTOM), 1)

    parts = [f'<svg class="curves" width="{_WIDTH}" height="{_HEIGHT}" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img">']
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        y = at(ks[0], share)[1]
        parts.append(f'<line x1="{_LEFT}" y1="{y}" x2="{_WIDTH - 66}" y2="{y}" class="grid"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4}" text-anchor="end">{share:.0%}</text>')
    parts += [f'<text x="{at(k, 0)[0]}" y="{_HEIGHT - 8}" text-anchor="middle">{k}</text>' for k in ks]
    for number, (name, points) in enumerate(lines.items()):
        dots = [at(k, value) for k, value in sorted(points.items()) if value is not None]
        if not dots:
            continue
        path = " ".join(f"{x},{y}" for x, y in dots)
        parts.append(f'<polyline points="{path}" class="line{number}"/>')
        parts += [f'<circle cx="{x}" cy="{y}" r="3" class="dot{number}"/>' for x, y in dots]
        parts.append(f'<text x="{dots[-1][0] + 8}" y="{dots[-1][1] + 4}" class="name{number}">{name}</text>')
    return "".join([*parts, "</svg>"])
