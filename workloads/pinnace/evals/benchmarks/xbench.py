"""xbench-DeepSearch (Chen et al., arXiv 2506.13651): 2505 and 2510."""

from __future__ import annotations

from collections.abc import Iterator

from ..benchmark import Benchmark, Split
from ..cipher import decrypt_plain
from ..graders import JudgeGrader, JudgePrompt, Profile, readings
from ..graders.rules import xbench_exact
from ..item import Item
from ..rows import read_rows, text_of
from ..source import Fetched, HubData
from .forms import FINAL_ZH


def read(fetched: Fetched) -> Iterator[Item]:
    """Columns id, prompt, answer (both encrypted), canary; reference_steps are not used."""
    for path in fetched.files:
        for number, row in enumerate(read_rows(path), 1):
            where = f"{path.name}, row {number}"
            canary = text_of(row, "canary", where)
            yield Item(
                id=text_of(row, "id", where),
                question=decrypt_plain(text_of(row, "prompt", where), canary),
                answer=decrypt_plain(text_of(row, "answer", where), canary),
                canary=canary,
            )


_PROMPT = JudgePrompt.shipped("xbench", readings.conclusion)
BENCHMARK = Benchmark(
    name="xbench-deepsearch",
    title="xbench-DeepSearch",
    splits={
        "2510": Split(
            HubData("xbench/DeepSearch-2510", ("*2510*.csv", "*.csv", "data/*.parquet", "*.parquet")), size=100
        ),
        "2505": Split(
            HubData("xbench/DeepSearch", ("DeepSearch.csv", "*2505*.csv", "data/*.parquet", "*.parquet")), size=100
        ),
    },
    read=read,
    system=FINAL_ZH,
    rule="line|tag|final",
    profiles={
        "official": Profile(JudgeGrader(_PROMPT, first=xbench_exact), judge="gemini-2.0-flash", note="5 attempts"),
        "community": Profile(JudgeGrader(_PROMPT), judge="gpt-4.1", note="judge only"),
    },
    licence="MIT; do not publish in plain text",
    blocked=("huggingface.co/datasets/xbench", "github.com/xbench-ai/xbench-evals"),
)
