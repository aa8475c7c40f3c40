"""When a call may be tried again. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from random import Random
from typing import Literal

from pinnace.tools.outcome import Outcome

MAX_ATTEMPTS = 3
RESERVE = 10.0  # retries that are always in the budget, so that a quiet gateway retries too
_FIRST_WAIT, _LONGEST_WAIT = 0.02, 1.0


class Reach(Enum):
    """How far a failed call got."""

    NOT_SENT = auto()  # no connection: nothing ran
    REFUSED = auto()  # the server said that it did not take it (503, 429)
    UNKNOWN = auto()  # it was sent; whether it ran is not known


@dataclass(frozen=True)
class Failure:
    """An attempt that failed for a reason which is not the tool's; `final`: no other attempt can go better."""

    outcome: Outcome
    reach: Reach
    message: str
    retry_after: float | None = None
    final: bool = False


@dataclass
class Budget:
    """Bounds the retries to a share of the calls: each call earns `percent`/100 of a retry (Finagle's retry budget)."""

    percent: float
    tokens: float = RESERVE

    def earn(self) -> None:
        self.tokens = min(self.tokens + self.percent / 100, 100 * RESERVE)

    def spend(self) -> bool:
        """Take one retry; False when there is none left."""
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True


Policy = Literal["Auto", "Never", "Always"]


def is_safe(policy: Policy, *, read_only: bool, idempotent: bool) -> bool:
    """Whether running the tool twice does no harm: by its annotations, or by its owner's word."""
    return policy == "Always" or (policy == "Auto" and (read_only or idempotent))


def may_retry(policy: Policy, *, safe: bool, failure: Failure, attempt: int) -> bool:
    """Whether attempt number `attempt` (from 1) may be followed by another, budget and deadline apart."""
    if failure.final or policy == "Never" or attempt >= MAX_ATTEMPTS or not failure.outcome.infrastructure:
        return False
    return safe or failure.reach is not Reach.UNKNOWN


def wait(attempt: int, rng: Random, retry_after: float | None = None) -> float:
    """Seconds before the next attempt: exponential with full jitter, never less than the server asked for."""
    jittered = rng.uniform(0, min(_LONGEST_WAIT, _FIRST_WAIT * 4 ** (attempt - 1)))
    return max(jittered, min(retry_after or 0.0, _LONGEST_WAIT))
