"""Scout's question files: one for each split, and what their world is made from."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from pinnace.tools.world.scout import LANGUAGES, LEVELS, SPLITS, Language, Task, tasks
from pinnace.tools.world.settings import Settings
from pinnace.tools.world.site import World


def write(
    folder: Path,
    settings: Settings,
    *,
    n: int = 5,
    levels: Sequence[int] = LEVELS,
    languages: Sequence[Language] = LANGUAGES,
    seed: int = 0,
) -> list[Path]:
    """Writes `<split>.jsonl.gz` with `n` questions for each level and language, and `world.json`.

    Raises:
        ValueError: as `tasks`; nothing is written then.
    """
    world = settings.build()
    rows = {split: list(_rows(world, split, n, levels, languages, seed)) for split in SPLITS}
    made = {"world.json": json.dumps({**asdict(settings), "digest": world.digest}, indent=1).encode() + b"\n"}
    for split, lines in rows.items():
        made[f"{split}.jsonl.gz"] = gzip.compress("".join(lines).encode(), mtime=0)
    folder.mkdir(parents=True, exist_ok=True)
    for name, body in made.items():
        (folder / name).write_bytes(body)
    return [folder / name for name in made]


def _rows(
    world: World, split: str, n: int, levels: Sequence[int], languages: Sequence[Language], seed: int
) -> Iterator[str]:
    """Easy ones first, languages in turn, so that the first few are a fair part of the first level."""
    for hops in levels:
        by_language = [tasks(world, split, seed=seed, hops=hops, language=each, n=n) for each in languages]
        for same in zip(*by_language, strict=True):
            for task in same:
                yield json.dumps(_row(task), ensure_ascii=False) + "\n"


def _row(task: Task) -> dict[str, object]:
    evidence = [{"url": step.url, "statement": step.statement, "obtains": step.obtains} for step in task.evidence]
    return {
        "id": task.id,
        "question": task.question,
        "answer": task.answer,
        "language": task.language,
        "hops": task.hops,
        "kind": task.kind,
        "evidence": evidence,
    }
