"""The merge methods. `REGISTRY` is the only place that knows them all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .base import Block, Contract, Measure, Method, Survey, Task
from .linear import Linear
from .nuslerp import Nuslerp
from .ram import Ram, Ramplus
from .sce import Sce
from .spheres import Karcher, Multislerp, Slerp
from .stock import ModelStock
from .taskvectors import TaskVectors
from .thinning import Largest, Random, RandomByRank, WithoutOutliers

__all__ = ["REGISTRY", "Block", "Contract", "Measure", "Method", "Survey", "Task"]

REGISTRY: dict[str, Callable[[Any], Method]] = {
    "linear": lambda _: Linear(),
    "task_arithmetic": lambda _: TaskVectors(None, election=False),
    "slerp": lambda _: Slerp(),
    "nuslerp": lambda settings: Nuslerp(flatten=settings.flatten, row_wise=settings.row_wise),
    "multislerp": lambda _: Multislerp(),
    "karcher": lambda _: Karcher(),
    "ties": lambda _: TaskVectors(Largest(), election=True),
    "dare_linear": lambda _: TaskVectors(Random(), election=False),
    "dare_ties": lambda _: TaskVectors(Random(), election=True),
    "della": lambda _: TaskVectors(RandomByRank(), election=True),
    "della_linear": lambda _: TaskVectors(RandomByRank(), election=False),
    "breadcrumbs": lambda _: TaskVectors(WithoutOutliers(), election=False),
    "breadcrumbs_ties": lambda _: TaskVectors(WithoutOutliers(), election=True),
    "model_stock": lambda settings: ModelStock(rows=settings.filter_wise),
    "sce": lambda _: Sce(),
    "ram": lambda _: Ram(),
    "ramplus": lambda _: Ramplus(),
}
"""From a method's settings (`pinnace_operator.api.mergemethods`) to the method."""
