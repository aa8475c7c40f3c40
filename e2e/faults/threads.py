"""What lives in an event loop, for a program that has none."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import Any, TypeVar

from e2e.faults.model import Script, ScriptedModel, scripted_model

T = TypeVar("T")


@contextmanager
def in_thread(enter: Callable[[], AbstractAsyncContextManager[T]]) -> Iterator[T]:
    """What `enter` gives, served by an event loop in a thread of its own until the end of the block."""
    ready, made = threading.Event(), list[T]()
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()

    async def serve() -> None:
        async with enter() as it:
            made.append(it)
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()), daemon=True)
    thread.start()
    assert ready.wait(10)
    try:
        yield made[0]
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        loop.close()


@contextmanager
def serving(script: Script, **settings: Any) -> Iterator[ScriptedModel]:
    """A scripted model."""
    with in_thread(lambda: scripted_model(script, **settings)) as model:
        yield model
