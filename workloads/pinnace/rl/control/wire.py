"""What goes over HTTP between a run's processes, and how long anybody insists."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import httpx
from pydantic import TypeAdapter

from pinnace.outcome import InvalidSpec
from pinnace.rl.types import Trajectory

KEY = "PINNACE_RL_KEY"
POLL_SECONDS = 5.0
# A pod that is gone does not even refuse connections.
_TIMEOUT = httpx.Timeout(POLL_SECONDS + 60, connect=5)
_TRAJECTORIES = TypeAdapter(list[Trajectory])


class Refusal(RuntimeError):
    """A process of the run answered 4xx: asking again changes nothing."""


class Silence(ConnectionError):
    """A process of the run did not answer for as long as we insist."""


class Stopped(Silence):
    """It does not answer, and we are asked to stop: who stops a run stops all of its processes at once."""


def run_key() -> str:
    """What the run's processes know each other by. Raises `InvalidSpec`."""
    if key := os.environ.get(KEY):
        return key
    raise InvalidSpec(f"{KEY} is not set: give every process of a run the same secret text")


def dump_trajectories(trajectories: Sequence[Trajectory]) -> bytes:
    return _TRAJECTORIES.dump_json(list(trajectories))


def load_trajectories(body: bytes) -> list[Trajectory]:
    return _TRAJECTORIES.validate_json(body)


def checked(answer: httpx.Response) -> httpx.Response | None:
    """The answer if it is one; None if it may be one later (5xx). Raises `Refusal`."""
    if answer.is_server_error:
        return None
    if answer.is_error:
        raise Refusal(f"{answer.request.url}: HTTP {answer.status_code}: {answer.text[:1000]}")
    return answer


def _waits(patience: float) -> Iterator[float]:
    """Pauses between tries, until patience is over."""
    began, pause = time.monotonic(), 0.1
    while time.monotonic() - began < patience:
        yield pause
        pause = min(pause * 2, 2.0)


class Line:
    """Speaks to one process and insists while it restarts, unless we are asked to stop; from threads. Close it."""

    def __init__(self, url: str, *, key: str, patience: float, stopping: Callable[[], bool] = lambda: False) -> None:
        self._url, self._patience, self._stopping = url, patience, stopping
        self._http = httpx.Client(base_url=url, headers=_auth(key), timeout=_TIMEOUT, trust_env=False)

    def ask(self, path: str, given: dict[str, Any]) -> httpx.Response:
        """Raises `Refusal`, `Stopped` or `Silence`."""
        for pause in _waits(self._patience):
            try:
                if (answer := checked(self._http.post(path, json=given))) is not None:
                    return answer
            except httpx.TransportError:
                pass
            if self._stopping():
                raise Stopped(f"{self._url} does not answer any more")
            time.sleep(pause)
        raise Silence(f"{self._url} did not answer for {self._patience:g} s")

    def close(self) -> None:
        self._http.close()


class AsyncLine:
    """The same for an event loop."""

    def __init__(self, url: str, *, key: str, patience: float) -> None:
        self._url, self._patience = url, patience
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=256)
        self._http = httpx.AsyncClient(
            base_url=url, headers=_auth(key), timeout=_TIMEOUT, limits=limits, trust_env=False
        )

    async def ask(self, path: str, given: dict[str, Any] | None = None, *, body: bytes | None = None) -> httpx.Response:
        """Raises `Refusal` or `Silence`."""
        for pause in _waits(self._patience):
            try:
                made = await self._http.post(path, json=given, content=body)
                if (answer := checked(made)) is not None:
                    return answer
            except httpx.TransportError:
                pass
            await asyncio.sleep(pause)
        raise Silence(f"{self._url} did not answer for {self._patience:g} s")

    async def aclose(self) -> None:
        await self._http.aclose()


def _auth(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}
