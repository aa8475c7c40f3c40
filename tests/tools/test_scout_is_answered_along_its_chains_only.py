"""Scout's questions: the same everywhere, apart by split, and answered by their evidence or not at all."""

from __future__ import annotations

import gzip
import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pinnace.evals
import pytest
from pinnace.tools.world import Index, Settings, Task, World, tasks
from pinnace.tools.world.scout import LANGUAGES, LEVELS, SPLITS
from pinnace.tools.world.scout_file import write

SHIPPED = Path(pinnace.evals.__file__).parent / "benchmarks/scout_data"
LOUD = Settings(seed=3, pages=600, noise=2, length=2)
_NO_NAMES = {"At", "Give", "How", "In", "Of", "On", "Start", "The", "What", "Which", "Who"}


@pytest.fixture(scope="module", params=[Settings(), LOUD], ids=["shipped", "noisy"])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    yield request.param.build()


@pytest.fixture(scope="module")
def made(world: World) -> list[Task]:
    """Three questions of each split, level and language."""
    levels = [hops for hops in LEVELS if hops <= len(world.islands[0].entities()) // 4]
    return [task for split in SPLITS for language in LANGUAGES for hops in levels
            for task in tasks(world, split, seed=0, hops=hops, language=language, n=3)]  # fmt: skip


def test_each_fact_of_the_evidence_stands_on_its_page_and_on_no_other(world: World, made: list[Task]) -> None:
    """So whoever has not read a page of the chain can't know what comes after it, nor the answer."""
    lines: dict[str, list[str]] = {}
    for document in world.documents.values():
        for line in set(document.plain.splitlines()):
            lines.setdefault(line, []).append(document.url)
    for task in made:
        for step in task.evidence:
            assert lines.get(step.statement) == [step.url], (task.id, step)


def test_each_page_is_found_by_what_the_one_before_it_said(made: list[Task]) -> None:
    for task in made:
        assert len({step.url for step in task.evidence}) == task.hops, "a page is needed twice, or not at all"
        facts = [step for step in task.evidence if " was born in 1" not in step.statement]
        for one, two in pairwise(facts):
            assert one.obtains in two.statement or one.url == two.url, task.id
        assert task.kind == "memory" or task.evidence[-1].obtains == task.answer


def test_the_start_is_found_by_searching_for_the_words_of_the_question(world: World, made: list[Task]) -> None:
    index = Index(world)
    for task in made:
        named = [word for word in re.findall(r"[A-Z][\w-]+", task.question) if word not in _NO_NAMES]
        found = [hit.url for hit in index.search(" ".join(named)).hits]
        assert task.evidence[0].url in found, task.question


def test_a_question_names_neither_its_answer_nor_what_is_on_the_way(made: list[Task]) -> None:
    for task in made:
        said = task.question.casefold()
        assert not [step for step in task.evidence if step.obtains.casefold() in said and len(step.obtains) > 3]
        assert task.answer.casefold() not in said or len(task.answer) <= 3


def test_a_memory_question_is_answered_by_all_pages_together(made: list[Task]) -> None:
    some = [task for task in made if task.kind == "memory"]
    assert len(some) >= len(made) // 20
    for task in some:
        years = [step for step in task.evidence if step.obtains.isdigit()]
        assert len(years) >= 3
        first = min(years, key=lambda step: int(step.obtains))
        assert first.statement.startswith(f"{task.answer} was ")
        assert Counter(step.obtains for step in years)[first.obtains] == 1, "two are equally old"


def test_splits_share_no_page_and_no_question(made: list[Task]) -> None:
    pages = {split: {step.url for task in made if task.split == split for step in task.evidence} for split in SPLITS}
    assert all(pages.values())
    for one, two in (("train", "validation"), ("train", "test"), ("validation", "test")):
        assert not pages[one] & pages[two]
    assert len({task.question for task in made}) == len(made) == len({task.id for task in made})


def test_answers_can_not_be_guessed(made: list[Task]) -> None:
    most = Counter(task.answer for task in made).most_common(1)[0][1]
    assert most <= max(3, len(made) // 20)


def test_noise_and_length_change_the_pages_but_no_question() -> None:
    quiet, loud = Settings(seed=3, pages=600).build(), LOUD.build()
    ask = {"seed": 1, "hops": 8, "language": "en", "n": 5}
    assert tasks(quiet, "test", **ask) == tasks(loud, "test", **ask)  # type: ignore[arg-type]
    assert len(loud.documents) > 2 * len(quiet.documents)
    path = quiet.islands[0].people[0].path
    assert len(loud.documents[path].text) > 1.3 * len(quiet.documents[path].text)
    name = quiet.islands[0].people[0].name
    found = [hit.url for hit in Index(loud).search(f"the birthplace of {name}").hits]
    assert [url for url in found if "/notes/" in url], "no distractor competes"


def test_more_questions_begin_with_the_fewer_and_another_seed_has_others() -> None:
    world = Settings(pages=600).build()
    many = tasks(world, "train", seed=0, hops=4, language="zh", n=30)
    assert tasks(world, "train", seed=0, hops=4, language="zh", n=10) == many[:10]
    assert tasks(world, "train", seed=1, hops=4, language="zh", n=10) != many[:10]


def test_the_shipped_files_are_what_the_command_makes_in_any_process(tmp_path: Path) -> None:
    code = "from pinnace.cli import main; main()"
    command = [sys.executable, "-c", code, "tools", "world", "scout", str(tmp_path)]
    subprocess.run(command, check=True, capture_output=True)
    for name in ("train", "validation", "test"):
        one, two = (gzip.decompress((folder / f"{name}.jsonl.gz").read_bytes()) for folder in (tmp_path, SHIPPED))
        assert one == two, name
    assert json.loads((tmp_path / "world.json").read_text()) == json.loads((SHIPPED / "world.json").read_text())


@pytest.mark.parametrize(
    ("settings", "change", "told"),
    [
        (Settings(pages=200), {}, "in a world of as many islands"),
        (Settings(pages=300), {"levels": [256]}, "build one with more pages"),
        (Settings(noise=-1), {}, "noise is 0 to"),
        (Settings(length=0), {}, "length 1 to"),
    ],
)
def test_what_can_not_be_made_is_refused_and_nothing_is_written(
    tmp_path: Path, settings: Settings, change: dict[str, list[int]], told: str
) -> None:
    with pytest.raises(ValueError, match=told):
        write(tmp_path / "out", settings, **change)  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()
