"""SEAL-0 of SealQA (Pham et al., arXiv 2506.01062). Its answers change with the world: a revision must be named."""

from __future__ import annotations

from collections.abc import Iterator

from ..benchmark import Benchmark, Split
from ..graders import JudgeGrader, JudgePrompt, Profile, readings
from ..item import Item, id_of
from ..rows import read_rows, text_of
from ..source import Fetched, HubData
from .forms import TAG

_DATA = HubData(
    "vtllms/sealqa", ("seal-0.parquet", "seal_0*.parquet", "seal-0*.parquet", "seal_0/*.parquet", "*.jsonl")
)


def read(fetched: Fetched) -> Iterator[Item]:
    """Columns question, answer; freshness and topic where they are."""
    for path in fetched.files:
        for number, row in enumerate(read_rows(path), 1):
            where = f"{path.name}, row {number}"
            question = text_of(row, "question", where)
            yield Item(
                id=id_of(question),
                question=question,
                answer=text_of(row, "answer", where),
                groups={"freshness": str(row.get("freshness") or "")},
                canary=row.get("canary"),
            )


_LETTER = JudgeGrader(JudgePrompt.shipped("letter", readings.letter))
BENCHMARK = Benchmark(
    name="seal-0",
    title="SEAL-0",
    splits={"test": Split(_DATA, size=111)},
    read=read,
    system=TAG,
    rule="tag|line|final",
    profiles={
        "official": Profile(_LETTER, judge="gpt-4o-mini"),
        "community": Profile(
            JudgeGrader(JudgePrompt.shipped("letter", readings.letter), answer_only=True), judge="gpt-4.1"
        ),
    },
    licence="Apache-2.0",
    blocked=("huggingface.co/datasets/vtllms/sealqa",),
    must_pin=True,
)
