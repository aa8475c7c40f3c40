"""BrowseComp-ZH (Zhou et al., arXiv 2504.19314)."""

from __future__ import annotations

from collections.abc import Iterator

from ..benchmark import Benchmark, Split
from ..cipher import decrypt_sha256
from ..graders import JudgeGrader, JudgePrompt, Profile, readings
from ..item import Item, id_of
from ..rows import read_rows, text_of
from ..source import Fetched, HubData
from .forms import CONFIDENT_ZH

_DATA = HubData("PALIN2018/BrowseComp-ZH", ("*.xlsx", "*.parquet", "data/*.parquet", "*.csv", "*.jsonl"))


def read(fetched: Fetched) -> Iterator[Item]:
    """Columns Topic, Question, Answer (all encrypted), canary."""
    for path in fetched.files:
        for number, row in enumerate(read_rows(path), 1):
            where = f"{path.name}, row {number}"
            canary = text_of(row, "canary", where)
            question = decrypt_sha256(text_of(row, "Question", where), canary)
            topic = row.get("Topic")
            yield Item(
                id=id_of(question),
                question=question,
                answer=decrypt_sha256(text_of(row, "Answer", where), canary),
                groups={"topic": decrypt_sha256(str(topic), canary) if topic else ""},
                canary=canary,
            )


BENCHMARK = Benchmark(
    name="browsecomp-zh",
    title="BrowseComp-ZH",
    splits={"test": Split(_DATA, size=289)},
    read=read,
    system=CONFIDENT_ZH,
    rule="line|tag|final",
    profiles={
        "official": Profile(JudgeGrader(JudgePrompt.shipped("hle_zh", readings.hle)), judge="gpt-4o"),
        "community": Profile(
            JudgeGrader(JudgePrompt.shipped("letter_zh", readings.letter), answer_only=True),
            judge="gpt-4.1",
            note="SimpleQA-style letter",
        ),
    },
    licence="Apache-2.0; do not publish in plain text",
    blocked=("huggingface.co/datasets/palin2018/browsecomp-zh", "github.com/palin2018/browsecomp-zh"),
    calibrated=True,
)
