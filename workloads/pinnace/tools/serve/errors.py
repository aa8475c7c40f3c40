"""How a call can fail in the bridge, as types with the outcome that the caller sees."""

from __future__ import annotations

from pinnace.tools.outcome import Outcome


class ServeError(Exception):
    """Base of all errors of `pinnace.tools.serve`. `outcome` is what a call that fails with it reports."""

    outcome = Outcome.UNAVAILABLE


class StartFailed(ServeError):
    """A child did not come through its handshake."""


class ChildDied(ServeError):
    """The child ended, or was killed because it hung, while it had the call."""


class TooLong(ServeError):
    """The child's answer is longer than a message may be."""

    outcome = Outcome.TOOL_ERROR


class Deadline(ServeError):
    """The call's time is over."""

    outcome = Outcome.TIMEOUT


class QueueFull(ServeError):
    """As many calls as may are waiting already. `retry_after` is in seconds."""

    outcome = Outcome.OVERLOADED

    def __init__(self, message: str, *, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Draining(ServeError):
    """The bridge is about to exit and takes no new calls."""


class CrashLoop(ServeError):
    """No child is alive, and each that is started dies."""
