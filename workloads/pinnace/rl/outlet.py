"""Everything that a trainer tells and asks: the coordinator, the proxy, the place of the weights. Rank 0 only.

When a run is suspended its other processes end with us, and before the checkpoint is saved: what they are not told any
more (`Stopped`) they would forget.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from pinnace.storage import Published

from .control.wire import Line, Stopped, load_trajectories
from .types import Trajectory
from .weights import Weights


class Outlet:
    """`begin` first. Servers take a publication over in a thread, so that training does not wait for them."""

    def __init__(
        self,
        coordinator: Line,
        proxy: Line,
        weights: Weights,
        *,
        output: Callable[[Callable[[Path], None]], Published],
    ) -> None:
        """`output` gets a writer of the finished model, puts that where it belongs and returns where."""
        self._coordinator, self._proxy, self._weights = coordinator, proxy, weights
        self._output = output
        self.quarantined, self.reward = 0, 0.0
        """Servers that did not take over the newest weights; mean reward of the newest attempts."""
        self._known: dict[str, int | None] = {}
        """Version and newest group that was trained: a coordinator that has lost its disk learns them from us."""
        self._thread = ThreadPoolExecutor(1, "announce")
        self._announced: Future[None] | None = None

    def begin(self, step: int, newest_group: int | None) -> int:
        """Says from which step training goes on, and which groups are trained; returns the version of its weights."""
        newest = self._weights.newest()
        given = {"step": step, "published": None if newest is None else newest.version, "newest_group": newest_group}
        version = int(self._coordinator.ask("/v1/trainer/begin", given).json()["version"])
        self._known = {"version": version, "newest_group": newest_group}
        return version

    def batch(self, step: int) -> list[Trajectory]:
        """Claimed for the step; empty when there was too little to train on for as long as a poll takes."""
        with suppress(Stopped):
            return load_trajectories(self._coordinator.ask("/v1/trainer/batch", {"step": step, **self._known}).content)
        return []

    def stepped(self, step: int, version: int, newest_group: int) -> None:
        """The number of the weights is taken before anybody sees them."""
        self._known = {"version": version, "newest_group": newest_group}
        with suppress(Stopped):
            answer = self._coordinator.ask("/v1/trainer/stepped", {"step": step, **self._known})
            self.reward = float(answer.json()["reward"])

    def durable(self, step: int) -> None:
        """The checkpoint of a step can't be lost any more."""
        with suppress(Stopped):
            self._coordinator.ask("/v1/trainer/ack", {"step": step})

    def publish(self, version: int, write: Callable[[Path], None]) -> None:
        """Returns when the weights can be fetched. Raises what the announcement of the last version ended with."""
        if self._announced is not None:
            self._announced.result()
        self._weights.publish(version, write)
        self._announced = self._thread.submit(self._announce, version)

    def finish(self, write: Callable[[Path], None]) -> Published:
        """Publishes the finished model."""
        if self._announced is not None:
            self._announced.result()
        return self._output(write)

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _announce(self, version: int) -> None:
        with suppress(Stopped):
            answer = self._proxy.ask("/rl/weights", {"version": version}).json()
            self.quarantined = sum(not isinstance(found, int) for found in answer["servers"].values())
            self._coordinator.ask("/v1/trainer/served", {"version": answer["served"]})
