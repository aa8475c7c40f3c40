"""Resident memory of a merge over time, as the kernel counts it, and a picture of it."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass

_PERIOD = 0.05
_WIDTH, _HEIGHT, _LEFT, _TOP, _RIGHT, _BOTTOM = 720, 320, 56, 28, 20, 44
_COLOURS = ("#1d4ed8", "#c2410c", "#15803d")
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Curve:
    """(seconds, MiB) over the life of one process, and its peak as the kernel has it."""

    label: str
    points: Sequence[tuple[float, float]]
    peak: float


def watched(label: str, command: Sequence[str]) -> Curve:
    """Runs a program to its end and looks at its memory all the time. Its last line tells its peak, as JSON.

    Raises SystemExit if it fails.
    """
    points = []
    with tempfile.TemporaryFile("w+") as out, subprocess.Popen(command, stdout=out, stderr=out) as process:
        began = time.perf_counter()
        while process.poll() is None:
            if size := _resident(process.pid):
                points.append((time.perf_counter() - began, size))
            time.sleep(_PERIOD)
        out.seek(0)
        text = out.read()
    if process.returncode:
        raise SystemExit(text[-3000:])
    return Curve(label, points, json.loads(text.splitlines()[-1])["peak"] / 2**20)


def _resident(pid: int) -> float:
    with open(f"/proc/{pid}/statm") as file:  # noqa: PTH123 - twenty times a second
        return int(file.read().split()[1]) * _PAGE / 2**20


def svg(curves: Sequence[Curve], limit: float) -> str:
    """A line a curve, and one at the limit in MiB."""
    seconds = max(at for curve in curves for at, _ in curve.points)
    top = max(limit, *(curve.peak for curve in curves)) * 1.1

    def place(at: float, size: float) -> str:
        x = _LEFT + (_WIDTH - _LEFT - _RIGHT) * at / seconds
        return f"{x:.1f},{_HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * size / top:.1f}"

    def text(x: float, y: float, words: str, colour: str = "black", anchor: str = "start") -> str:
        return f'<text x="{x:.1f}" y="{y:.1f}" fill="{colour}" text-anchor="{anchor}">{words}</text>'

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" font-size="12">',
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>',
        f'<polyline points="{place(0, limit)} {place(seconds, limit)}" stroke="#6b7280" stroke-dasharray="4"/>',
        text(_LEFT, _TOP - 10, f"resident memory in MiB; dashed: memoryLimit, {limit:.0f} MiB", "#6b7280"),
        text(_WIDTH - _RIGHT, _HEIGHT - 12, f"{seconds:.0f} s", anchor="end"),
        text(_LEFT, _HEIGHT - 12, "0 s"),
    ]
    for step in range(5):
        size = top * step / 4
        parts.append(text(_LEFT - 8, float(place(0, size).split(",")[1]) + 4, f"{size:.0f}", anchor="end"))
    for number, curve in enumerate(curves):
        colour = _COLOURS[number % len(_COLOURS)]
        line = " ".join(place(at, size) for at, size in curve.points)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        parts.append(text(_LEFT + 130 * (number + 1), _HEIGHT - 12, f"{curve.label}, peak {curve.peak:.0f}", colour))
    return "\n".join(parts) + "\n</svg>\n"
