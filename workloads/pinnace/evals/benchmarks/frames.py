"""FRAMES: Factuality, Retrieval, And reasoning MEasurement Set (Krishna et al., arXiv 2409.12941)."""

from __future__ import annotations

from collections.abc import Iterator

from ..benchmark import Benchmark, Split
from ..graders import JudgeGrader, JudgePrompt, Profile, readings
from ..item import Item, id_of
from ..rows import read_rows, text_of
from ..source import Fetched, HubData
from .forms import TAG

_DATA = HubData("google/frames-benchmark", ("test.tsv", "test*.csv", "data/test-*.parquet", "*.parquet", "*.jsonl"))


def read(fetched: Fetched) -> Iterator[Item]:
    """Columns "Unnamed: 0" (the number), Prompt, Answer, wiki_links, reasoning_types."""
    for path in fetched.files:
        for number, row in enumerate(read_rows(path), 1):
            where = f"{path.name}, row {number}"
            question, index = text_of(row, "Prompt", where), row.get("Unnamed: 0", row.get(""))
            yield Item(
                id=str(index) if index not in (None, "") else id_of(question),
                question=question,
                answer=text_of(row, "Answer", where),
                groups={"reasoning": str(row.get("reasoning_types") or "")},
            )


_AUTORATER = JudgeGrader(JudgePrompt.shipped("frames", readings.decision))
BENCHMARK = Benchmark(
    name="frames",
    title="FRAMES",
    splits={"test": Split(_DATA, size=824)},
    read=read,
    system=TAG,
    rule="tag|line|final",
    profiles={
        "official": Profile(_AUTORATER, judge="gemini-1.5-pro", note="the paper's auto-rater"),
        "community": Profile(
            JudgeGrader(JudgePrompt.shipped("letter", readings.letter), answer_only=True), judge="gpt-4.1"
        ),
    },
    licence="Apache-2.0",
    blocked=("huggingface.co/datasets/google/frames-benchmark",),
)
