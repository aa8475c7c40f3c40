"""What is kept of a stream that may never end: its start, its end, and how much lay between."""

from __future__ import annotations


class Capture:
    """Holds at most `limit` bytes."""

    def __init__(self, limit: int) -> None:
        self.resize(limit)
        self.clear()

    def resize(self, limit: int) -> None:
        """Another limit from now on."""
        self._head_limit = limit - limit // 3
        self._tail_limit = limit // 3

    def clear(self) -> None:
        """Forgets everything."""
        self._head = bytearray()
        self._tail = bytearray()
        self.total = 0

    def feed(self, data: bytes) -> None:
        """Takes what came next."""
        self.total += len(data)
        if (room := self._head_limit - len(self._head)) > 0:
            self._head += data[:room]
            data = data[room:]
        if data:
            self._tail += data
            if len(self._tail) > 2 * self._tail_limit:  # trimmed now and then, not at each small write
                del self._tail[: -self._tail_limit]

    @property
    def left_out(self) -> int:
        """Bytes that were seen and not kept."""
        return max(0, self.total - len(self._head) - min(len(self._tail), self._tail_limit))

    def text(self) -> str:
        """What is kept, as text; bytes that are no UTF-8 are replaced."""
        tail = self._tail[-self._tail_limit :] if self._tail_limit else b""
        if not self.left_out:
            return bytes(self._head + tail).decode(errors="replace")
        left_out = f"\n[… {self.left_out:,} bytes left out …]\n"
        return self._head.decode(errors="replace") + left_out + tail.decode(errors="replace")

    def take(self) -> tuple[str, int]:
        """(text, bytes left out), and forgets them."""
        taken = self.text(), self.left_out
        self.clear()
        return taken
