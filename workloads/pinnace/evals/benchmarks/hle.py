"""HLE: Humanity's Last Exam (Phan et al., arXiv 2501.14249)."""

from __future__ import annotations

from collections.abc import Iterator

from ..benchmark import Benchmark, Split
from ..graders import JudgeGrader, JudgePrompt, Profile, readings
from ..item import Item
from ..rows import read_rows, text_of
from ..source import Fetched, HubData
from .forms import CONFIDENT

_DATA = HubData("cais/hle", ("data/test-*.parquet", "*.jsonl"))


def read(fetched: Fetched) -> Iterator[Item]:
    """Columns id, question, image (a data URI or empty), answer, answer_type, raw_subject, category, canary."""
    for path in fetched.files:
        for number, row in enumerate(read_rows(path), 1):
            where = f"{path.name}, row {number}"
            image = row.get("image")
            yield Item(
                id=text_of(row, "id", where),
                question=text_of(row, "question", where),
                answer=text_of(row, "answer", where),
                images=(str(image),) if image else (),
                groups={
                    "category": str(row.get("category") or ""),
                    "images": "with image" if image else "text only",
                },
                answer_type=str(row.get("answer_type") or ""),
                canary=row.get("canary"),
            )


_PROFILE = JudgeGrader(JudgePrompt.shipped("hle", readings.hle))
BENCHMARK = Benchmark(
    name="hle",
    title="Humanity's Last Exam",
    splits={
        "text": Split(_DATA, keep=lambda item: not item.images, size=2158),
        "all": Split(_DATA, size=2500),
    },
    read=read,
    system=CONFIDENT,
    rule="line|final",
    profiles={
        "official": Profile(_PROFILE, judge="o3-mini-2025-01-31"),
        "community": Profile(_PROFILE, judge="o3-mini-2025-01-31", note="as official"),
    },
    gate="HLE's owners ask that it is not redistributed.",
    licence="MIT; gated; do not redistribute",
    blocked=("huggingface.co/datasets/cais/hle", "huggingface.co/datasets/cais/hle-rolling", "lastexam.ai"),
    calibrated=True,
)
