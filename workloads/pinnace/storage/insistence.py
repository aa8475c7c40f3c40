"""How long to go on asking a store that does not answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from typing import TypeVar

from pinnace.storage.backoff import Backoff
from pinnace.storage.errors import StorageUnavailable

T = TypeVar("T")


def _ignore(_: StorageUnavailable) -> None:
    """The last error is raised anyway."""


@dataclass(frozen=True)
class Insistence:
    """Repeats requests that fail for transient reasons.

    Attributes:
        give_up_after: seconds from the first try of one request; None: for ever.
        cap: longest wait between two tries, in seconds.
        on_trouble: told every failure that is going to be retried.
    """

    give_up_after: float | None = 120
    cap: float = 30
    on_trouble: Callable[[StorageUnavailable], None] = _ignore

    def __call__(self, call: Callable[[], T]) -> T:
        """The result of `call`. Raises `StorageUnavailable` if it is not transient, or in the end."""
        began, backoff = monotonic(), Backoff(first=min(0.5, self.cap), cap=self.cap)
        while True:
            try:
                return call()
            except StorageUnavailable as error:
                if not error.transient or (
                    self.give_up_after is not None and monotonic() - began >= self.give_up_after
                ):
                    raise
                self.on_trouble(error)
                backoff.sleep()
