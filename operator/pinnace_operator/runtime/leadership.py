"""What only the leader does, and when: workers and the resync wait here."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

Term = Callable[[], Awaitable[None]]


class Leadership:
    """Whether this replica leads, as something to wait for."""

    def __init__(self) -> None:
        self._leads = asyncio.Event()
        self._term_started = asyncio.Event()

    def won(self) -> None:
        self._leads.set()
        self._term_started.set()

    def lost(self) -> None:
        self._leads.clear()

    def __bool__(self) -> bool:
        return self._leads.is_set()

    async def wait(self) -> None:
        """Return at once while this replica leads, else when it does."""
        await self._leads.wait()

    async def pause(self, seconds: float) -> None:
        """Wait for about `seconds` (±20 %, so that replicas and operators spread), or until a new term starts."""
        self._term_started.clear()
        try:
            await asyncio.wait_for(self._term_started.wait(), seconds * random.uniform(0.8, 1.2))  # noqa: S311 -- jitter
        except TimeoutError:
            return
