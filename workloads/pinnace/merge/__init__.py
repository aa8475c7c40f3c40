"""Merging models in parameter space, from store to store (docs/merge.md). Importing this imports no torch."""

from pinnace_operator.api.merge import MergeSpec

from .errors import (
    Interrupted,
    InvalidMerge,
    MergeError,
    OutOfBudget,
    SourceChanged,
    SourceDamaged,
    SourcesDiffer,
    SourceUnusable,
)
from .plan import Plan, SourceFolders, make_plan
from .run import RunOptions, run
from .shards import Progress
from .source import Folder

__all__ = [
    "Folder",
    "Interrupted",
    "InvalidMerge",
    "MergeError",
    "MergeSpec",
    "OutOfBudget",
    "Plan",
    "Progress",
    "RunOptions",
    "SourceChanged",
    "SourceDamaged",
    "SourceFolders",
    "SourceUnusable",
    "SourcesDiffer",
    "make_plan",
    "run",
]
