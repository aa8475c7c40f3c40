"""BrowseComp (Wei et al., arXiv 2504.12516)."""

from __future__ import annotations

from collections.abc import Iterator

from ..benchmark import Benchmark, Split
from ..cipher import decrypt_sha256
from ..graders import JudgeGrader, JudgePrompt, Profile, readings
from ..item import Item, id_of
from ..rows import read_rows, text_of
from ..source import Fetched, HubData
from .forms import CONFIDENT

# The authors' file is browse_comp_test_set.csv at openaipublic.blob.core.windows.net/simple-evals; hub copies have the
# same columns.
_DATA = HubData("smolagents/browse_comp", ("browse_comp_test_set.csv", "data/test-*.parquet", "*.csv"))


def read(fetched: Fetched) -> Iterator[Item]:
    """Columns problem, answer (both encrypted), problem_topic, canary."""
    for path in fetched.files:
        for number, row in enumerate(read_rows(path), 1):
            where = f"{path.name}, row {number}"
            canary = text_of(row, "canary", where)
            question = decrypt_sha256(text_of(row, "problem", where), canary)
            yield Item(
                id=id_of(question),
                question=question,
                answer=decrypt_sha256(text_of(row, "answer", where), canary),
                groups={"topic": str(row.get("problem_topic") or "")},
                canary=canary,
            )


BENCHMARK = Benchmark(
    name="browsecomp",
    title="BrowseComp",
    splits={"test": Split(_DATA, size=1266)},
    read=read,
    system=CONFIDENT,
    rule="line|tag|final",
    profiles={
        "official": Profile(JudgeGrader(JudgePrompt.shipped("hle", readings.hle)), judge="gpt-4o"),
        "community": Profile(
            JudgeGrader(JudgePrompt.shipped("letter", readings.letter), answer_only=True),
            judge="gpt-4.1",
            note="SimpleQA-style letter, as AgentCPM and MiroThinker judge",
        ),
    },
    gate="Take browse_comp_test_set.csv from OpenAI's simple-evals and give it as a copy.",
    licence="MIT; do not publish in plain text",
    blocked=("huggingface.co/datasets/smolagents/browse_comp", "openaipublic.blob.core.windows.net/simple-evals"),
    calibrated=True,
)
