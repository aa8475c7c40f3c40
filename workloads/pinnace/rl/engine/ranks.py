"""The processes of one trainer: they do the same, and rank 0 speaks for them."""

from __future__ import annotations

from typing import TypeVar

import torch
import torch.distributed as dist

Value = TypeVar("Value")


class Ranks:
    """All of them, or the only one where no process group is."""

    def __init__(self) -> None:
        self._many = dist.is_initialized() and dist.get_world_size() > 1
        self.rank = dist.get_rank() if self._many else 0

    @property
    def first(self) -> bool:
        return self.rank == 0

    def share(self, value: Value) -> Value:
        """Rank 0's value, on every rank."""
        if not self._many:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def any(self, flag: bool) -> bool:
        """True on every rank if it is on one: all must stop at the same step."""
        if not self._many:
            return flag
        box = torch.tensor(int(flag), device="cuda" if dist.get_backend() == "nccl" else "cpu")
        dist.all_reduce(box, op=dist.ReduceOp.MAX)
        return bool(box.item())

    def meet(self) -> None:
        """Until all are here."""
        if self._many:
            dist.barrier()
