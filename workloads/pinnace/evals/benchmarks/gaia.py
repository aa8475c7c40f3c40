"""GAIA: a benchmark for General AI Assistants (Mialon et al., arXiv 2311.12983)."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path

from ..benchmark import Benchmark, Split
from ..errors import DataMissing
from ..graders import JudgeGrader, JudgePrompt, Profile, RuleGrader, readings
from ..graders.rules import gaia
from ..item import Item
from ..rows import read_rows, text_of
from ..source import Fetched, HubData
from .forms import GAIA

_REPO = "gaia-benchmark/GAIA"
_HIDDEN = "?"


def read(fetched: Fetched) -> Iterator[Item]:
    """`metadata.jsonl` or `metadata.parquet` with Question, Final answer, Level, file_name; attachments beside it."""
    tables = [path for path in fetched.files if path.stem == "metadata" and path.suffix in {".jsonl", ".parquet"}]
    if not tables:
        raise DataMissing(f"GAIA: there is no metadata.jsonl or metadata.parquet in {fetched.folder}")
    table = min(tables)
    for number, row in enumerate(read_rows(table), 1):
        where = f"{table.name}, row {number}"
        name = str(row.get("file_name") or "")
        attachment = table.parent / name if name else None
        if attachment is not None and not attachment.is_file():
            raise DataMissing(f"{where}: its attachment {name} is not beside the table: copy the whole folder")
        yield Item(
            id=text_of(row, "task_id", where),
            question=text_of(row, "Question", where),
            answer=str(row.get("Final answer") or _HIDDEN),
            files=(attachment,) if attachment is not None else (),
            groups={"level": str(row.get("Level", ""))},
        )


@cache
def _text_103() -> frozenset[str]:
    """The 103 questions that the community reports text-only scores on, by id (first published with WebThinker)."""
    return frozenset(Path(__file__).with_name("gaia_text_103.txt").read_text().split())


def _hub(part: str) -> HubData:
    return HubData(_REPO, (f"2023/{part}/*",))


def _level(level: str) -> Split:
    sizes = {"1": 53, "2": 86, "3": 26}
    return Split(_hub("validation"), keep=lambda item: item.groups["level"] == level, size=sizes[level])


_EQUIVALENT = JudgeGrader(JudgePrompt.shipped("equivalent", readings.word), answer_only=True)
BENCHMARK = Benchmark(
    name="gaia",
    title="GAIA",
    splits={
        "validation": Split(_hub("validation"), size=165),
        "text": Split(_hub("validation"), keep=lambda item: not item.files),
        "text-103": Split(_hub("validation"), keep=lambda item: item.id in _text_103(), size=103),
        "level1": _level("1"),
        "level2": _level("2"),
        "level3": _level("3"),
        "test": Split(_hub("test"), size=301, graded=False),
    },
    read=read,
    system=GAIA,
    rule="tag|line|final",
    profiles={
        "official": Profile(RuleGrader("gaia", gaia), note="the leaderboard's rule"),
        "community": Profile(_EQUIVALENT, judge="Qwen2.5-72B-Instruct", note="equivalence by a judge: looser"),
    },
    gate="GAIA's owners ask that it is not published where crawlers can read it.",
    licence="gated; answers must not be republished",
    blocked=("huggingface.co/datasets/gaia-benchmark", "huggingface.co/spaces/gaia-benchmark"),
)
