"""Results of cacheable tools by canonical arguments, with a time to live. Pure: time comes in."""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from pinnace.tools.outcome import ToolResult

_MAX_BYTES = 64 << 20


def canonical(tool: str, arguments: Mapping[str, Any]) -> str:
    """The same text for the same call, whatever the order of its arguments; a hash, so that no argument is kept."""
    text = json.dumps([tool, arguments], sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


class ResultCache:
    """Keeps at most 64 MiB; the longest unused goes first."""

    def __init__(self, *, max_bytes: int = _MAX_BYTES) -> None:
        self._max = max_bytes
        self._size = 0
        self._entries: OrderedDict[str, tuple[float, int, ToolResult]] = OrderedDict()

    def get(self, key: str, now: float) -> ToolResult | None:
        entry = self._entries.get(key)
        if entry is None:
            return None
        if entry[0] <= now:
            self._drop(key)
            return None
        self._entries.move_to_end(key)
        return entry[2]

    def put(self, key: str, result: ToolResult, *, until: float, size: int) -> None:
        """`size`: bytes of the result, about."""
        self._drop(key)
        if size > self._max // 8:
            return
        self._entries[key] = (until, size, result)
        self._size += size
        while self._size > self._max:
            self._drop(next(iter(self._entries)))

    def _drop(self, key: str) -> None:
        if entry := self._entries.pop(key, None):
            self._size -= entry[1]
