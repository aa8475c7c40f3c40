"""A sweep's candidates, table and picture."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest
from pinnace.merge import MergeSpec
from pinnace.merge.plot import svg
from pinnace.merge.sweep import Score, candidates, losers, table


def spec(*axes: dict[str, object]) -> MergeSpec:
    source = {"uri": "s3://models/base"}
    data = {"builtin": {"name": "arithmetic-tools"}}
    return MergeSpec.from_manifest(
        {
            "method": {"taskArithmetic": {}},
            "base": source,
            "models": [{"name": "agent", "source": {"uri": "s3://models/agent"}, "weight": "1"}],
            "sweep": {"axes": list(axes), "metric": {"special": data, "general": data}},
        }
    )


def test_all_combinations_in_order() -> None:
    found = candidates(
        spec(
            {"parameter": "lambda", "values": ["0.5", "1"]},
            {"parameter": "weight", "model": "agent", "values": ["0.2", "0.4"]},
        )
    )
    assert [list(one.values.values()) for one in found] == [["0.5", "0.2"], ["0.5", "0.4"], ["1", "0.2"], ["1", "0.4"]]
    assert found[1].spec.layers[1].values == ("0.4",)
    assert all(one.spec.sweep is None for one in found)


def test_the_best_wins_and_broken_ones_cannot() -> None:
    tried = candidates(spec({"parameter": "lambda", "values": ["0", "0.5", "1", "1.5"]}))
    losses = [Score(3, 1), Score(1.5, 1.2), Score(1, 2), Score(float("nan"), 1)]
    rows = table(tried, {one.name: score for one, score in zip(tried, losses, strict=True)})
    assert [row.winner for row in rows] == [False, True, False]
    assert losers(rows) == ["candidate-000", "candidate-002"]
    by_special = table(tried, {one.name: score for one, score in zip(tried, losses, strict=True)}, special_weight=1)
    assert [row.winner for row in by_special] == [False, False, True]


def test_the_picture_has_both_lines_and_the_winner() -> None:
    tried = candidates(spec({"parameter": "lambda", "values": ["0", "0.5", "2"]}))
    rows = table(tried, {one.name: Score(2 - i, 1 + i * i) for i, one in enumerate(tried)})
    root = ET.fromstring(svg(rows))  # noqa: S314 - made by ourselves
    lines = [one.attrib["points"].split() for one in root.iter("{http://www.w3.org/2000/svg}polyline")]
    assert [len(points) for points in lines] == [3, 3]
    xs = [float(point.split(",")[0]) for point in lines[0]]
    assert (xs[1] - xs[0]) * 3 == pytest.approx(xs[2] - xs[1], abs=1)  # by value, not by position
    assert "best" in {one.text for one in root.iter("{http://www.w3.org/2000/svg}text")}
