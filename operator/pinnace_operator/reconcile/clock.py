"""Times as the API writes them. Nothing here reads a clock: `now` is a fact of the reconcile."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta


def parse(text: str | None) -> datetime | None:
    """An RFC 3339 time; None when absent or not a time with a zone."""
    if not text:
        return None
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return None
    return time if time.tzinfo else None


def seconds_since(then: datetime | None, now: datetime) -> int:
    """Whole seconds, never negative: clocks of nodes differ."""
    return max(0, int((now - then).total_seconds())) if then else 0


def remaining(since: datetime | None, limit: int, now: datetime) -> int:
    """Seconds until `limit` seconds after `since` have passed; 0 when they have, all if `since` is unknown."""
    return max(0, limit - seconds_since(since, now))


def oldest() -> datetime:
    """A time before all others, to sort what has none."""
    return datetime.min.replace(tzinfo=UTC) + timedelta(days=1)
