"""What makes an image stale, what does not, and that nothing starts on a machine that cannot finish."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest

from e2e.images import recipe as recipes
from e2e.images.build import REVISION_LABEL, build, up_to_date
from e2e.images.engine import CONTENT_LABEL, Order, Say
from e2e.images.errors import ImageError
from e2e.images.preflight import check_disk, disk_needed
from e2e.images.recipe import RECIPES, select

COPIED = ("LICENSE", "pyproject.toml", ".dockerignore", "images", "requirements", "operator", "workloads")


class RecordingEngine:
    """An engine in memory: what it built, with which labels."""

    name = "recording"

    def __init__(self, *, fails: str = "") -> None:
        self.images: dict[str, dict[str, str]] = {}
        self.built: list[str] = []
        self._fails = fails

    def base(self, say: Say) -> str:
        say("base")
        return "base"

    def labels(self, reference: str) -> Mapping[str, str]:
        return self.images.get(reference, {})

    def build(self, order: Order, say: Say) -> None:
        say("building")
        if order.recipe.name == self._fails:
            raise ImageError("compiler error")
        self.built.append(order.recipe.name)
        self.images[order.reference] = {CONTENT_LABEL: order.content, REVISION_LABEL: order.revision}


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of what images are made of, which a test may change; no git repository."""
    for name in COPIED:
        source = recipes.REPOSITORY / name
        if source.is_dir():
            shutil.copytree(source, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, tmp_path / name)
    monkeypatch.setattr(recipes, "REPOSITORY", tmp_path)
    return tmp_path


def rebuilt(engine: RecordingEngine) -> set[str]:
    engine.built.clear()
    build(select([]), "cpu", engine, lambda _: None)
    return set(engine.built)


def test_only_what_changed_is_built(checkout: Path) -> None:
    engine = RecordingEngine()
    assert rebuilt(engine) == set(RECIPES)
    assert rebuilt(engine) == set()
    lock = checkout / "requirements/rollout-vllm-cpu.txt"
    lock.write_text(lock.read_text() + "# one more line\n")
    assert rebuilt(engine) == {"rollout-vllm"}
    (checkout / "workloads/pinnace/new.py").write_text("x = 1\n")
    assert rebuilt(engine) == set(RECIPES)


def test_bytecode_documents_and_tests_are_no_input(checkout: Path) -> None:
    engine = RecordingEngine()
    rebuilt(engine)
    (checkout / "workloads/pinnace/__pycache__").mkdir()
    (checkout / "workloads/pinnace/__pycache__/x.pyc").write_bytes(b"x")
    (checkout / "README.md").write_text("changed")
    assert rebuilt(engine) == set()


def test_the_device_decides_lock_and_tag() -> None:
    sglang = RECIPES["rollout-sglang"]
    assert sglang.reference("cuda").endswith("-cuda")
    assert {"torch-2.14-cuda.txt", "rollout-sglang-cuda.txt"} <= {path.name for path in sglang.inputs("cuda")}
    assert {"torch-2.13-cpu.txt", "rollout-sglang-cpu.txt"} <= {path.name for path in sglang.inputs("cpu")}
    assert sglang.content("cpu", "b") != sglang.content("cuda", "b")


def test_another_base_makes_every_image_stale() -> None:
    assert RECIPES["tools"].content("cpu", "sha256:1") != RECIPES["tools"].content("cpu", "sha256:2")


@pytest.mark.parametrize(
    ("built_as", "now", "fresh"),
    [("abc", "abc", True), ("abc", "def", True), ("abc-dirty", "abc-dirty", True), ("abc-dirty", "def", False)],
)
def test_a_commit_without_change_builds_nothing_unless_the_label_lies(built_as: str, now: str, fresh: bool) -> None:
    engine = RecordingEngine()
    engine.build(Order(RECIPES["tools"], "cpu", "same", built_as), print)
    assert up_to_date(Order(RECIPES["tools"], "cpu", "same", now), engine) is fresh


def test_a_failed_build_is_reported() -> None:
    with pytest.raises(ImageError, match="compiler error"):
        build(select(["tools"]), "cpu", RecordingEngine(fails="tools"), lambda _: None)


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ImageError, match=r"no image is called trianer: there are operator.*trainer"):
        select(["trianer"])


def test_a_full_disk_is_found_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="PINNACE_CACHE"):
        check_disk(1 << 30, lambda _: None, tmp_path / "not" / "there")
    assert disk_needed([], shared_there=False) == 0
    assert disk_needed([RECIPES["trainer"]], shared_there=True) < disk_needed([RECIPES["trainer"]], shared_there=False)


def test_a_missing_input_is_named(checkout: Path) -> None:
    (checkout / "LICENSE").unlink()
    with pytest.raises(ImageError, match="LICENSE is missing"):
        RECIPES["tools"].content("cpu", "b")
