"""A run's reward as a picture: each step, and the mean of the steps around it."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence

_WIDTH, _HEIGHT, _LEFT, _TOP, _RIGHT, _BOTTOM = 640, 360, 56, 24, 24, 40
_AROUND = 3


def reward(metrics: str) -> str:
    """SVG of `metrics.jsonl`; "" as long as there is no step."""
    points = [(line["step"], line["reward"]) for line in map(json.loads, metrics.splitlines())]
    if not points:
        return ""
    steps, rewards = zip(*points, strict=True)
    low, high = min(0.0, *rewards), max(1.0, *rewards)

    def place(step: float, value: float) -> tuple[float, float]:
        x = _LEFT + (_WIDTH - _LEFT - _RIGHT) * (step - steps[0]) / max(1, steps[-1] - steps[0])
        return round(x, 1), round(_TOP + (_HEIGHT - _TOP - _BOTTOM) * (high - value) / (high - low), 1)

    grid = ""
    for part in range(5):
        value = low + (high - low) * part / 4
        y = place(steps[0], value)[1]
        grid += (
            f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y}" y2="{y}" stroke="#e5e7eb"/>'
            f'<text x="{_LEFT - 8}" y="{y + 4}" text-anchor="end">{value:.2g}</text>'
        )
    drawn = list(map(place, steps, rewards))
    dots = "".join(f'<circle cx="{x}" cy="{y}" r="2.5" fill="#93c5fd"/>' for x, y in drawn)
    line = " ".join(f"{x},{y}" for x, y in map(place, steps, _smooth(rewards)))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="sans-serif" '
        f'font-size="12"><rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>{grid}{dots}'
        f'<polyline points="{line}" fill="none" stroke="#1d4ed8" stroke-width="2"/>'
        f'<text x="{_LEFT}" y="{_HEIGHT - 12}">step {steps[0]}</text>'
        f'<text x="{_WIDTH - _RIGHT}" y="{_HEIGHT - 12}" text-anchor="end">step {steps[-1]}</text>'
        f'<text x="{_LEFT}" y="{_TOP - 8}">mean reward of a step\'s attempts</text></svg>\n'
    )


def _smooth(values: Sequence[float]) -> list[float]:
    return [statistics.fmean(values[max(0, at - _AROUND) : at + _AROUND + 1]) for at in range(len(values))]
