"""What stops an evaluation before it costs anything. Every message says what is wrong and what to do."""

from __future__ import annotations


class EvalError(Exception):
    """Base of all errors of `pinnace.evals`."""


class UnknownBenchmark(EvalError):
    """No benchmark of this name; the message has the nearest."""


class DataGated(EvalError):
    """The data is there but its owners want consent first."""


class DataMissing(EvalError):
    """The data, or a file or revision of it, is not there."""


class DataChanged(EvalError):
    """The data is not what the checksum says."""


class DataInvalid(EvalError):
    """A row can't be read; the message names file, row and field."""


class NotPinned(EvalError):
    """A benchmark whose answers change was asked for without a revision."""


class ToolsUnavailable(EvalError):
    """The ToolSandbox did not give an attempt its tools. Not the agent's doing: the attempt is not finished."""


class ToolsRefused(ToolsUnavailable):
    """The gateway is there and doesn't let us in."""


class BadPlan(EvalError):
    """The evaluation can't work as it is asked for."""


class EndpointDown(BadPlan):
    """An endpoint does not answer at all: it may later."""
