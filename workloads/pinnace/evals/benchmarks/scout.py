"""Scout: our own deep-search questions over the offline world; made by `pinnace tools world scout`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ..benchmark import Benchmark, Split
from ..graders import Profile, RuleGrader
from ..graders.rules import gaia
from ..item import Item
from ..rows import Row, read_rows, text_of
from ..source import Fetched, HubData
from .forms import TAG

SHORT, LONG = 4, 32


def read(fetched: Fetched) -> Iterator[Item]:
    """`<split>.jsonl.gz` or `.jsonl` with id, question, answer, hops, language, kind."""
    for file in fetched.files:
        for number, row in enumerate(read_rows(file), 1):
            where = f"{file.name}, row {number}"
            yield Item(
                id=text_of(row, "id", where),
                question=text_of(row, "question", where),
                answer=text_of(row, "answer", where),
                page=_first_page(row),
                groups={name: text_of(row, name, where) for name in ("hops", "language", "kind")},
            )


def _first_page(row: Row) -> str:
    evidence = row.get("evidence") or [{}]
    return str(evidence[0].get("url", ""))


def _data(split: str) -> HubData:
    return HubData("scout", (f"{split}.jsonl.gz", f"{split}.jsonl"), shipped=Path(__file__).with_name("scout_data"))


BENCHMARK = Benchmark(
    name="scout",
    title="Scout",
    splits={
        "test": Split(_data("test")),
        "short": Split(_data("test"), keep=lambda item: int(item.groups["hops"]) <= SHORT),
        "long": Split(_data("test"), keep=lambda item: int(item.groups["hops"]) >= LONG),
        "validation": Split(_data("validation")),
        "train": Split(_data("train")),
    },
    read=read,
    system=f"{TAG} Write names and numbers as they stand on the pages.",
    rule="tag|final",
    profiles={"official": Profile(RuleGrader("gaia", gaia), note="exact")},
    licence="Apache-2.0, generated",
    needs=("search", "open", "find"),
)
