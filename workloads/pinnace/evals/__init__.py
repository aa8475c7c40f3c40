"""Benchmarks, graders, metrics, records and reports (docs/evals.md). The agent is `pinnace.agent`'s."""

from .benchmark import Benchmark, Loaded, Split, load
from .blobs import Blobs, FolderBlobs, S3Blobs, open_blobs
from .errors import (
    BadPlan,
    DataChanged,
    DataGated,
    DataInvalid,
    DataMissing,
    EvalError,
    NotPinned,
    UnknownBenchmark,
)
from .graders import Grade, Judge, JudgeGrader, JudgePrompt, Profile, RuleGrader, Verdict
from .item import Item, id_of
from .plan import Plan, configuration
from .records import Place, Record, Records, Unit
from .worker import Progress, Shard, Spending, work

__all__ = [
    "BadPlan",
    "Benchmark",
    "Blobs",
    "DataChanged",
    "DataGated",
    "DataInvalid",
    "DataMissing",
    "EvalError",
    "FolderBlobs",
    "Grade",
    "Item",
    "Judge",
    "JudgeGrader",
    "JudgePrompt",
    "Loaded",
    "NotPinned",
    "Place",
    "Plan",
    "Profile",
    "Progress",
    "Record",
    "Records",
    "RuleGrader",
    "S3Blobs",
    "Shard",
    "Spending",
    "Split",
    "Unit",
    "UnknownBenchmark",
    "Verdict",
    "configuration",
    "id_of",
    "load",
    "open_blobs",
    "work",
]
