"""Small models, merges by mergekit's configurations, and mergekit itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from e2e.merging import Shape, family
from e2e.oracles.mergekit import Mergekit, mergekit

torch.set_num_threads(1)  # as the engine does; two processors are shared with S3 and mergekit


@pytest.fixture(scope="session")
def oracle() -> Iterator[Mergekit]:
    """mergekit in a process of its own."""
    with mergekit() as running:
        yield running


@pytest.fixture(scope="session")
def families(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Folders of a base and three models in a dtype, made once."""
    made: dict[torch.dtype, list[Path]] = {}

    def get(dtype: torch.dtype = torch.bfloat16) -> list[Path]:
        if dtype not in made:
            root = tmp_path_factory.mktemp(str(dtype).removeprefix("torch."))
            made[dtype] = family(root, Shape(), dtype=dtype, models=3)
        return made[dtype]

    return get
