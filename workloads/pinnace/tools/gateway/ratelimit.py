"""Token buckets by key (tool and tenant). Pure: time comes in."""

from __future__ import annotations

from collections import OrderedDict

from pinnace.tools.gateway.config import RateLimit

_MAX_KEYS = 16_384


class RateLimiter:
    """Buckets fill with `per_second`, up to `burst`. Of more than 16,384 keys the longest unused start full again."""

    def __init__(self) -> None:
        self._buckets: OrderedDict[tuple[str, str], tuple[float, float]] = OrderedDict()

    def take(self, key: tuple[str, str], limit: RateLimit, now: float) -> float:
        """Take one token; 0 when there was one, else the seconds until there will be."""
        tokens, since = self._buckets.pop(key, (float(limit.burst), now))
        tokens = min(float(limit.burst), tokens + (now - since) * limit.per_second)
        wait = 0.0
        if tokens >= 1:
            tokens -= 1
        else:
            wait = (1 - tokens) / limit.per_second
        self._buckets[key] = (tokens, now)
        if len(self._buckets) > _MAX_KEYS:
            self._buckets.popitem(last=False)
        return wait
