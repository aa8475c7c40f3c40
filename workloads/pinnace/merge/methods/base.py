"""What a merge method is: pure functions over blocks of one tensor, in the compute dtype."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Task:
    """One tensor and the values that its parameters have there.

    Attributes:
        name: the tensor's name in the output.
        shape: its shape; `()` for a scalar.
        count: number of models.
        shared: parameters of the method (`lambda`, `t`, …).
        own: parameters of each model (`weight`, `density`, …), in the order of the models.
        options: what is no number (`normalize`, `rescale`, …).
        based: there is a base.
        seed: of the random masks.
    """

    name: str
    shape: tuple[int, ...]
    count: int
    shared: Mapping[str, float] = field(default_factory=dict)
    own: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    based: bool = True
    seed: int = 0
    across: Any = None
    """What `Method.across` found out about all tensors together."""

    @property
    def size(self) -> int:
        """Number of elements."""
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def columns(self) -> int:
        """Elements in a row: of the last dimension; a vector is one row."""
        return self.shape[-1] if self.shape else 1


@dataclass(frozen=True)
class Block:
    """Elements `start` to `start + n` of the tensor with this number, of base and models, flat.

    Whole rows if the method needs them.

    Where blocks of a tensor begin depends on its shape only: not on threads, memory or output parts.
    """

    start: int
    base: Tensor | None
    models: tuple[Tensor, ...]
    tensor: int = 0

    @property
    def address(self) -> int:
        """Grows from block to block, over all tensors of a merge."""
        return (self.tensor << 48) + self.start

    @property
    def origin(self) -> Tensor:
        """The base, for methods that need one."""
        if self.base is None:
            raise TypeError("this method needs a base")
        return self.base

    @property
    def deltas(self) -> tuple[Tensor, ...]:
        """Task vectors; without a base, the models themselves."""
        return self.models if self.base is None else tuple(model - self.base for model in self.models)


@dataclass(frozen=True)
class Measure:
    """One pass over all blocks of a tensor: `of` looks at a block, results are joined in the order of the blocks.

    With `join="add"` they are summed up one after the other, with `"append"` concatenated.
    """

    of: Callable[[Block], np.ndarray[Any, Any]]
    join: Literal["add", "append"] = "add"


Survey = Generator[Measure, np.ndarray[Any, Any], Any]
"""Asks for measures, is sent their results, and returns what `merge` needs to know about the whole tensor."""


@dataclass(frozen=True)
class Contract:
    """What a method takes.

    Attributes:
        base: whether it starts from a base; `ignored` methods take base and models alike.
        least, most: number of models.
        own: parameters of a model and their defaults; None: must be given.
        shared: parameters of the method that are numbers and may differ between tensors, with their names in manifests.
    """

    base: Literal["required", "optional", "ignored"] = "required"
    least: int = 1
    most: int | None = None
    own: Mapping[str, float | None] = field(default_factory=dict)
    shared: tuple[str, ...] = ()


class Method(Protocol):
    """One way to merge.

    Attributes:
        contract: what it takes.
        rows: its blocks must hold whole rows.
        surveyed: it looks at whole tensors before it merges (reads twice, or keeps what it read).
    """

    contract: Contract
    rows: bool

    def surveyed(self, task: Task) -> bool:
        """Whether `survey` asks for anything."""

    def survey(self, task: Task) -> Survey:
        """Finds out what must be known about the whole tensor."""

    def across(self, tasks: Sequence[Task]) -> Survey | None:
        """Finds out what must be known about all tensors together; None: nothing. It becomes the tasks' `across`."""

    def merge(self, block: Block, task: Task, found: Any) -> Tensor:
        """The merged elements of a block, in the compute dtype. Pure."""

    def check(self, task: Task) -> None:
        """Raises `InvalidMerge` for values that the method can't work with."""


class Alone:
    """What methods share that look at one tensor at a time."""

    rows = False

    def across(self, tasks: Sequence[Task]) -> Survey | None:
        """Nothing."""
        return None

    def check(self, task: Task) -> None:
        """Everything goes."""


class Plain(Alone):
    """What methods without a survey share."""

    def surveyed(self, task: Task) -> bool:
        """No."""
        return False

    def survey(self, task: Task) -> Survey:
        """Nothing to find out."""
        return
        yield
