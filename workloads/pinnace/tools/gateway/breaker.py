"""Circuit breaker and outlier ejection of one replica. Pure: time comes in as seconds of any monotonic clock."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

State = Literal["closed", "open", "half-open"]
_MAX_EJECTIONS = 5  # the ejection time doubles up to 2^5
_WINDOW = 20  # calls over which the failure rate is smoothed


@dataclass
class Breaker:
    """Opens after `threshold` failures in a row, or when more than half of the last calls or so failed.

    Open, it lets nothing through for `seconds` (doubled with each ejection in a row); then one call at a time is let
    through, and its end decides.
    """

    threshold: int
    seconds: float
    failures: int = 0
    ejections: int = 0
    open_until: float = 0.0
    probing: bool = False
    _rate: float = 0.0
    _calls: int = 0

    def state(self, now: float) -> State:
        if not self.open_until:
            return "closed"
        return "open" if now < self.open_until else "half-open"

    def allows(self, now: float) -> bool:
        """Whether a call may go through now. A half-open breaker allows one; tell it by `began`."""
        return not self.open_until or (now >= self.open_until and not self.probing)

    def began(self, now: float) -> None:
        """A call goes through."""
        if self.open_until and now >= self.open_until:
            self.probing = True

    def succeeded(self) -> None:
        self.failures = self.ejections = 0
        self.open_until = 0.0
        self.probing = False
        self._count(0.0)

    def failed(self, now: float) -> bool:
        """Returns True when this failure opens it."""
        self.failures += 1
        self._count(1.0)
        half_open, self.probing = self.probing, False
        outlier = self._calls >= _WINDOW and self._rate > 0.5
        if half_open or self.failures >= self.threshold or outlier:
            return self.eject(now)
        return False

    def eject(self, now: float) -> bool:
        """Open it whatever its calls were like (a health probe failed); True when it was not open."""
        was_open = self.open_until > now
        if not was_open:
            self.open_until = now + self.seconds * 2 ** min(self.ejections, _MAX_EJECTIONS)
            self.ejections += 1
            self.failures = self._calls = 0
            self._rate = 0.0
        return not was_open

    def abandoned(self) -> None:
        """A call ended without a verdict: the caller went away."""
        self.probing = False

    def _count(self, failure: float) -> None:
        self._calls += 1
        self._rate += (failure - self._rate) / min(self._calls, _WINDOW)
