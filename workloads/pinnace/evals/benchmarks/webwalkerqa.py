"""WebWalkerQA (Wu et al., arXiv 2501.07572)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

from ..benchmark import Benchmark, Split
from ..graders import JudgeGrader, JudgePrompt, Profile, readings
from ..item import Item, id_of
from ..rows import Row, read_rows, text_of
from ..source import Fetched, HubData
from .forms import TAG

_REPO = "callanwu/WebWalkerQA"


def read(fetched: Fetched) -> Iterator[Item]:
    """Columns question, answer, root_url, info {hop, language, difficulty_level, …} (an object, or one as JSON)."""
    for path in fetched.files:
        for number, row in enumerate(read_rows(path), 1):
            where = f"{path.name}, row {number}"
            question, root = text_of(row, "question", where), text_of(row, "root_url", where)
            info = _info(row)
            yield Item(
                id=id_of(question, root),
                question=question,
                answer=text_of(row, "answer", where),
                groups={
                    name: str(info.get(field) or "")
                    for name, field in (("difficulty", "difficulty_level"), ("hop", "hop"), ("language", "language"))
                },
            )


def _info(row: Row) -> Mapping[str, object]:
    info = row.get("info")
    if isinstance(info, str):
        info = json.loads(info)
    return info if isinstance(info, Mapping) else {}


_COT_QA = JudgeGrader(JudgePrompt.shipped("cot_qa", readings.grade))
BENCHMARK = Benchmark(
    name="webwalkerqa",
    title="WebWalkerQA",
    splits={
        "main": Split(HubData(_REPO, ("data/main-*.parquet", "main*.jsonl", "main*.parquet")), size=680),
        "silver": Split(HubData(_REPO, ("data/silver-*.parquet", "silver*.jsonl", "silver*.parquet"))),
    },
    read=read,
    system=TAG,
    rule="tag|line|final",
    profiles={
        "official": Profile(_COT_QA, judge="gpt-4"),
        "community": Profile(
            JudgeGrader(JudgePrompt.shipped("equivalent", readings.word), answer_only=True),
            judge="Qwen2.5-72B-Instruct",
            note="equivalence, as Tongyi DeepResearch judges",
        ),
    },
    licence="Apache-2.0",
    blocked=("huggingface.co/datasets/callanwu/webwalkerqa",),
)
