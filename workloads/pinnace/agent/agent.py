"""What shapes a trajectory: the task, and the agent that all trajectories of a run share."""

from __future__ import annotations

from dataclasses import dataclass, field

from .answer import AnswerRule
from .dialect import DIALECTS, Dialect
from .fold import Folder
from .guards import Limits
from .model import Model
from .policy import Policy
from .refine import Refiner
from .tokens import TokenCounter
from .view import Budget


@dataclass(frozen=True)
class Task:
    """What the agent is asked. `images` are data URIs."""

    question: str
    system: str = ""
    images: tuple[str, ...] = ()


@dataclass(frozen=True)
class Agent:
    """Everything that shapes a trajectory besides the task; shared by all trajectories of a run."""

    model: Model
    counter: TokenCounter
    budget: Budget
    policy: Policy
    limits: Limits = field(default_factory=Limits)
    dialect: Dialect = field(default_factory=lambda: DIALECTS["native"])
    rule: AnswerRule = field(default_factory=lambda: AnswerRule("tag|final"))
    refiner: Refiner | None = None
    folder: Folder | None = None

    def __post_init__(self) -> None:
        if self.policy.refine is not None and self.refiner is None:
            raise ValueError(f"policy {self.policy.name!r} refines: give a second model (`refiner`)")
        if self.policy.fold is not None and self.folder is None:
            raise ValueError(f"policy {self.policy.name!r} folds: give a `folder`")
