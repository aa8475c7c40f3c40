"""What sharing rests on: equal leading instructions, and locks that agree with the shared torch layer."""

from __future__ import annotations

import re

import pytest

from e2e.images.recipe import RECIPES, REPOSITORY, Recipe
from e2e.locks import LOCKS, REQUIREMENTS, Lock

HEAVY = [recipe for recipe in RECIPES.values() if recipe.heavy]
PIN = re.compile(r"^([a-z0-9][a-z0-9._-]*)(?:\[[^\]]*\])?==([^ \\;]+)", re.MULTILINE)


def pins(lock: str) -> dict[str, str]:
    return dict(PIN.findall((REQUIREMENTS / f"{lock}.txt").read_text()))


def shared_lines(dockerfile: str) -> str:
    start = dockerfile.index("ARG BASE")
    end = dockerfile.index("# ---- end of the shared lines")
    return dockerfile[start:end]


def test_heavy_images_begin_with_the_same_instructions() -> None:
    assert len({shared_lines(recipe.dockerfile.read_text()) for recipe in HEAVY}) == 1


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("recipe", HEAVY, ids=lambda recipe: recipe.name)
def test_no_lock_replaces_a_package_of_the_torch_layer(recipe: Recipe, device: str) -> None:
    shared, own = pins(f"torch-{recipe.torch(device)}-{device}"), pins(f"{recipe.name}-{device}")
    assert "torch" in shared
    assert {name: own.get(name, version) for name, version in shared.items()} == shared


def test_on_a_cpu_one_torch_fits_all() -> None:
    assert {recipe.torch("cpu") for recipe in HEAVY} == {"2.13"}


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_every_requirement_has_a_hash(lock: Lock) -> None:
    text = (REQUIREMENTS / f"{lock.name}.txt").read_text()
    entries = [entry for entry in re.split(r"\n(?=[a-z0-9])", text) if entry.strip()]
    assert entries
    assert [entry for entry in entries if "--hash=sha256:" not in entry] == []


@pytest.mark.parametrize("name", RECIPES)
def test_dockerfiles_name_no_registry_and_run_unprivileged(name: str) -> None:
    text = (REPOSITORY / f"images/{name}/Dockerfile").read_text()
    assert text.splitlines()[-2] == "USER 65532:65532"
    assert "://" not in text
    assert re.search(r"--(index-url|extra-index|trusted-host)|PIP_|UV_INDEX", text) is None
    # buildah 1.28 empties the layer of a RUN with such a mount.
    assert "--mount" not in text
