"""Writes every form of a report into one folder or S3 prefix."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from pinnace.agent import Event

from ..blobs import Blobs
from ..records import Records, Unit
from .inspect_log import write_inspect_log
from .page import Compared, Trajectories, render
from .summary import Summary
from .table import leaderboard, write_parquet


def read_trajectories(records: Mapping[str, Records], slugs: Mapping[tuple[str, str], str]) -> Trajectories:
    """Trajectories from the records of each benchmark; `slugs` by (benchmark, item)."""

    def read(summary: Summary, item: str, attempt: int) -> Sequence[Event]:
        slug = slugs[summary.benchmark, item]
        return records[summary.benchmark].trajectory(Unit(item, slug, attempt))

    return read


def write_report(
    blobs: Blobs,
    summaries: Sequence[Summary],
    *,
    name: str = "report",
    title: str = "Evaluation",
    trajectories: Trajectories = lambda *_: (),
    comparisons: Sequence[Compared] = (),
    inspect: bool = True,
) -> list[str]:
    """Writes summary.json, attempts.parquet, report.html, leaderboard.md and `<benchmark>.eval`; returns the names."""
    body = json.dumps([each.model_dump(mode="json", by_alias=True) for each in summaries], ensure_ascii=False, indent=1)
    written = {
        f"{name}/summary.json": body.encode(),
        f"{name}/leaderboard.md": leaderboard(summaries).encode(),
        f"{name}/report.html": render(
            summaries, title=title, trajectories=trajectories, comparisons=comparisons
        ).encode(),
    }
    with tempfile.TemporaryDirectory(prefix="pinnace-report-") as scratch:
        table = Path(scratch) / "attempts.parquet"
        write_parquet(summaries, table)
        written[f"{name}/attempts.parquet"] = table.read_bytes()
        for summary in summaries if inspect else ():
            file = Path(scratch) / f"{summary.benchmark}.eval"
            write_inspect_log(summary, file, trajectories=trajectories)
            written[f"{name}/{file.name}"] = file.read_bytes()
    for each, content in written.items():
        blobs.put(each, content)
    return list(written)


def read_summaries(blobs: Blobs, name: str = "report") -> list[Summary]:
    """What `write_report` wrote. Raises `FileNotFoundError`."""
    body = blobs.get(f"{name}/summary.json")
    if body is None:
        raise FileNotFoundError(f"{blobs}/{name}/summary.json is not there: run the evaluation first")
    return [Summary.model_validate(each) for each in json.loads(body)]
