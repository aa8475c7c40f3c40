"""Files in the exact formats of the eight benchmarks, with questions of our own: their data can't be shipped.

Encrypted where theirs are. The real loaders read them; nothing else knows that they are not real.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pinnace.evals.cipher import encrypt_plain, encrypt_sha256

CANARY = "pinnace-synthetic-canary-9f2c7e"
_IMAGE = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAA"
    "AABJRU5ErkJggg=="
)


@dataclass(frozen=True)
class Question:
    """One synthetic question."""

    id: str
    question: str
    answer: str
    extra: dict[str, Any] = field(default_factory=dict)


def questions(count: int = 6) -> list[Question]:
    """Small sums in two languages, some with an attachment or an image."""
    made = []
    for number in range(count):
        text = f"What is {number} + {number}?" if number % 2 == 0 else f"{number} 加 {number} 等于多少？"  # noqa: RUF001 - Chinese
        extra: dict[str, Any] = {"level": number % 3 + 1, "topic": "sums" if number % 2 == 0 else "算术"}
        if number % 3 == 2:
            extra |= {"file": f"table-{number}.txt", "image": _IMAGE}
        made.append(Question(f"item-{number:03d}", text, str(2 * number), extra))
    return made


def write(benchmark: str, folder: Path, made: Sequence[Question] | None = None) -> Path:
    """Writes one benchmark's files as its repository has them, and returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    _WRITERS[benchmark](folder, questions() if made is None else made)
    return folder


def _gaia(folder: Path, made: Sequence[Question]) -> None:
    part = folder / "2023/validation"
    part.mkdir(parents=True)
    rows = []
    for each in made:
        name = each.extra.get("file", "")
        if name:
            (part / name).write_text("1 2 3\n")
        rows.append(
            {
                "task_id": each.id,
                "Question": each.question,
                "Level": each.extra["level"],
                "Final answer": each.answer,
                "file_name": name,
                "Annotator Metadata": {"Steps": "1. Add.", "Number of steps": "1", "Tools": "None"},
            }
        )
    (part / "metadata.jsonl").write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def _hle(folder: Path, made: Sequence[Question]) -> None:
    rows = [
        {
            "id": each.id,
            "question": each.question,
            "image": each.extra.get("image", ""),
            "image_preview": None,
            "answer": each.answer,
            "answer_type": "exactMatch",
            "author_name": "us",
            "rationale": "addition",
            "rationale_image": None,
            "raw_subject": "Arithmetic",
            "category": "Math",
            "canary": CANARY,
        }
        for each in made
    ]
    _parquet(folder / "data/test-00000-of-00001.parquet", rows)


def _browsecomp(folder: Path, made: Sequence[Question]) -> None:
    rows = [
        {
            "problem": encrypt_sha256(each.question, CANARY + each.id),
            "answer": encrypt_sha256(each.answer, CANARY + each.id),
            "problem_topic": each.extra["topic"],
            "canary": CANARY + each.id,
        }
        for each in made
    ]
    _csv(folder / "browse_comp_test_set.csv", rows, "utf-8")


def _browsecomp_zh(folder: Path, made: Sequence[Question]) -> None:
    from openpyxl import Workbook

    book = Workbook(write_only=True)
    sheet = book.create_sheet("Sheet1")
    sheet.append(["Topic", "Question", "Answer", "canary"])
    for each in made:
        texts = (each.extra["topic"], each.question, each.answer)
        sheet.append([*(encrypt_sha256(text, CANARY) for text in texts), CANARY])
    book.save(folder / "browsecomp-zh-encrypted.xlsx")


def _webwalkerqa(folder: Path, made: Sequence[Question]) -> None:
    rows = [
        {
            "question": each.question,
            "answer": each.answer,
            "root_url": "https://sums.example/",
            "info": {
                "hop": "multi-source",
                "domain": "education",
                "language": "en",
                "difficulty_level": "easy",
                "source_website": ["https://sums.example/a"],
                "golden_path": ["root->a"],
            },
        }
        for each in made
    ]
    _parquet(folder / "data/main-00000-of-00001.parquet", rows)
    _parquet(folder / "data/silver-00000-of-00001.parquet", rows[:1])


def _frames(folder: Path, made: Sequence[Question]) -> None:
    with (folder / "test.tsv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter="\t")
        writer.writerow(["", "Prompt", "Answer", "wikipedia_link_1", "reasoning_types", "wiki_links"])
        for number, each in enumerate(made):
            link = "https://en.wikipedia.org/wiki/Sum"
            writer.writerow([number, each.question, each.answer, link, "Numerical reasoning", f"['{link}']"])


def _xbench(folder: Path, made: Sequence[Question]) -> None:
    rows = [
        {
            "id": each.id,
            "prompt": encrypt_plain(each.question, CANARY),
            "answer": encrypt_plain(each.answer, CANARY),
            "reference_steps": encrypt_plain("1. Add.", CANARY),
            "canary": CANARY,
        }
        for each in made
    ]
    _csv(folder / "DeepSearch-2510.csv", rows, "utf-8-sig")


def _seal0(folder: Path, made: Sequence[Question]) -> None:
    rows = [
        {
            "question": each.question,
            "answer": each.answer,
            "freshness": "never-changing",
            "question_types": ["advanced reasoning"],
            "topic": "Science",
            "effective_year": "before 2024",
            "search_results": "not_helpful",
            "urls": [],
            "canary": CANARY,
        }
        for each in made
    ]
    _parquet(folder / "seal-0.parquet", rows)


_WRITERS: dict[str, Callable[[Path, Sequence[Question]], None]] = {
    "gaia": _gaia,
    "hle": _hle,
    "browsecomp": _browsecomp,
    "browsecomp-zh": _browsecomp_zh,
    "webwalkerqa": _webwalkerqa,
    "frames": _frames,
    "xbench-deepsearch": _xbench,
    "seal-0": _seal0,
}


def _csv(path: Path, rows: Sequence[dict[str, Any]], encoding: str) -> None:
    with path.open("w", encoding=encoding, newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def _parquet(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(list(rows)), path)
