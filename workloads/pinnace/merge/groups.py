"""Parts that must be looked at together, because a tensor that the method surveys spans them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from .buffers import capacity
from .layout import Part, Shard
from .plan import Plan


@dataclass(frozen=True)
class Group:
    """Consecutive parts of one shard, and the tensor that is surveyed across them (None: the part stands alone)."""

    shard: Shard
    parts: tuple[Part, ...]
    tensor: int | None

    def cost(self, plan: Plan) -> int:
        """Bytes of buffers to hold all of it."""
        return sum(cost(plan, part) for part in self.parts)


def cost(plan: Plan, part: Part) -> int:
    """Bytes of input buffers for one part."""
    return sum(capacity(size) for size in plan.buffers(part))


def groups(plan: Plan, shard: Shard) -> Iterator[Group]:
    """The parts of a shard in order, those that share a surveyed tensor together."""
    pending: list[Part] = []
    tensor: int | None = None
    for part in shard.parts:
        pending.append(part)
        last = part.spans[-1] if part.spans else None
        task = plan.tensors[last.tensor].task if last else None
        open_ = (
            last is not None
            and task is not None
            and last.end < plan.tensors[last.tensor].output.size
            and plan.parameters.method.surveyed(task)
        )
        if open_ and last:
            tensor = last.tensor
            continue
        yield Group(shard, tuple(pending), tensor)
        pending, tensor = [], None
