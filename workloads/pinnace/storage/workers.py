"""A thread pool that never keeps a process from ending."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from types import TracebackType
from typing import ParamSpec, Self, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class Workers:
    """`count` daemon threads for the length of a `with` block.

    `concurrent.futures` joins its threads when the interpreter ends: a trainer that was told to stop while S3 is down
    would hang in its retries until it is killed.
    """

    def __init__(self, count: int, name: str) -> None:
        self._tasks: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=self._work, name=f"{name}-{index}", daemon=True) for index in range(count)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for _ in self._threads:
            self._tasks.put(None)
        for thread in self._threads:
            thread.join()

    def submit(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Runs `call` on one of the threads."""
        future: Future[T] = Future()

        def task() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                future.set_result(call(*args, **kwargs))
            except BaseException as error:  # noqa: BLE001 - handed to whoever asks for the result
                future.set_exception(error)

        self._tasks.put(task)
        return future

    def _work(self) -> None:
        while task := self._tasks.get():
            task()
            del task  # it holds its arguments, which may be large, until the next one comes


def gather(futures: list[Future[T]]) -> list[T]:
    """Waits for all, then returns their results or raises the first error; after an error, starts no more."""
    first: BaseException | None = None
    for future in futures:
        if first is not None:
            future.cancel()
        if not future.cancelled() and (error := future.exception()) is not None:
            first = first or error
    if first is not None:
        raise first
    return [future.result() for future in futures]
