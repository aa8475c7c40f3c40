"""How a pod tells its end: an exit code and a termination message, both durable in the pod's status."""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from typing import Annotated, Self

from pydantic import Field, ValidationError

from pinnace_operator.api.base import ApiModel
from pinnace_operator.api.conditions import Reason
from pinnace_operator.api.evalresult import BenchmarkResults
from pinnace_operator.api.merge_status import MergeReport
from pinnace_operator.api.status import CheckpointRef, OutputRef, Step

TERMINATION_MESSAGE_BYTES = 4096
"""What the kubelet keeps of a container's termination message."""


class ExitCode(IntEnum):
    """Exit codes with a meaning (sysexits.h where one fits). Any other is a failure that is retried and counted."""

    COMPLETED = 0
    INVALID_SPEC = 64
    INVALID_DATA = 65
    STORAGE_UNAVAILABLE = 69
    DIVERGED = 70
    MODEL_UNUSABLE = 78
    CHECKPOINTED = 85

    @property
    def reason(self) -> Reason:
        return Reason[self.name]

    @property
    def permanent(self) -> bool:
        """The job fails at once: another attempt would end the same way."""
        return self not in {ExitCode.COMPLETED, ExitCode.CHECKPOINTED}


PERMANENT_EXIT_CODES = tuple(int(code) for code in ExitCode if code.permanent)


class Outcome(ApiModel):
    """A container's termination message."""

    reason: Reason
    """Why it ended."""
    message: str = ""
    """What, where, and the remedy."""
    exit_code: Annotated[int, Field(ge=0, le=255)]
    """The exit code that follows."""
    step: Step | None = None
    """The last optimizer step that was finished."""
    checkpoint: CheckpointRef | None = None
    """The newest durable checkpoint."""
    output: OutputRef | None = None
    """The committed result, from rank 0 of a completed job."""
    merge: MergeReport | None = None
    """From a completed MergeJob: its plan, files and sweep."""
    benchmarks: BenchmarkResults = ()
    """Of an EvalSuite that has ended: what each benchmark came to."""
    log_tail: str = ""
    """The last lines of the log."""

    @property
    def fits(self) -> bool:
        """Nothing of it needs to be cut."""
        return _fits(self.model_dump_json(exclude_none=True))

    def dump(self) -> str:
        """JSON of at most 4096 bytes: the start of `log_tail` is cut away first, then the end of `message`."""
        whole = self.model_dump_json(exclude_none=True)
        if _fits(whole):
            return whole
        tail = _largest(len(self.log_tail), lambda length: self._cut(len(self.message), length))
        if tail is not None:
            return self._cut(len(self.message), tail)
        return self._cut(_largest(len(self.message), lambda length: self._cut(length, 0)) or 0, 0)

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """The outcome in a termination message; None when it is something else (a killed process, a foreign image)."""
        try:
            return cls.model_validate_json(text)
        except ValidationError:
            return None

    def _cut(self, message: int, log_tail: int) -> str:
        text = self.message if message >= len(self.message) else self.message[: max(0, message - 1)] + "…"
        tail = self.log_tail[len(self.log_tail) - log_tail :]
        return self.model_copy(update={"message": text, "log_tail": tail}).model_dump_json(exclude_none=True)


def _fits(text: str) -> bool:
    return len(text.encode()) <= TERMINATION_MESSAGE_BYTES


def _largest(most: int, render: Callable[[int], str]) -> int | None:
    """The largest n in 0…most whose rendering fits; None when not even 0 does."""
    if not _fits(render(0)):
        return None
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if _fits(render(middle)) else (low, middle - 1)
    return low
