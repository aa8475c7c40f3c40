"""A sampler: takes attempts, has its agent play them through the proxy, and delivers what was sampled."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from pinnace.rl.config import RunConfig, Task
from pinnace.rl.control.wire import AsyncLine, Refusal, Silence
from pinnace.rl.metrics import Clock, labelled
from pinnace.rl.types import Termination, Trajectory, dump_trajectory, load_trajectory

from .agents import Ending, Play
from .reward import reward_of

log = logging.getLogger(__name__)


class Sampler:
    """`run` returns when the run is finished; cancel it to stop: attempts under way are given back."""

    def __init__(
        self,
        config: RunConfig,
        *,
        name: str,
        coordinator: AsyncLine,
        proxy: AsyncLine,
        play: Play,
        reward: Callable[..., Any] | None,
        slots: int,
    ) -> None:
        """`slots` is how many attempts it plays at once."""
        self._config, self._name = config, name
        self._coordinator, self._proxy = coordinator, proxy
        self._play, self._reward = play, reward
        self._slots = slots
        self._playing: dict[str, asyncio.Task[None]] = {}
        self._free = asyncio.Event()
        self._clock = Clock()

    async def run(self) -> None:
        """Raises `Silence` when the coordinator is gone for good."""
        alive = asyncio.create_task(self._stay_alive())
        try:
            while True:
                if (room := self._slots - len(self._playing)) <= 0:
                    self._free.clear()
                    await self._free.wait()
                    continue
                with self._clock.waiting("attempts", share=room / self._slots):
                    asked = {"sampler": self._name, "limit": room}
                    given = (await self._coordinator.ask("/v1/attempts/take", asked)).json()
                if given["finished"]:
                    return
                for one in given["attempts"]:
                    if one["id"] not in self._playing:
                        self._start(one["id"], one["group"], one["task"])
                if alive.done():
                    await alive
        finally:
            alive.cancel()
            for attempt in self._playing.values():
                attempt.cancel()
            await asyncio.gather(*self._playing.values(), return_exceptions=True)

    def values(self) -> dict[str, float]:
        """For the metrics: what share of the slots waited for what."""
        return {"attempts_playing": len(self._playing), **labelled("share", "of", self._clock.shares())}

    def _start(self, id_: str, group: str, task: Task) -> None:
        def ended(_: asyncio.Task[None]) -> None:
            del self._playing[id_]
            self._free.set()

        self._playing[id_] = asyncio.create_task(self._attempt(id_, group, task))
        self._playing[id_].add_done_callback(ended)

    async def _attempt(self, id_: str, group: str, task: Task) -> None:
        """Delivered, or lost; nothing else."""
        try:
            trajectory = await self._trajectory(id_, group, task)
            await self._coordinator.ask("/v1/trajectories", body=dump_trajectory(trajectory))
        except (Refusal, Silence) as error:
            # The proxy has died, and the session with it: the attempt is played again.
            log.warning("attempt %s is lost: %s: %s", id_, type(error).__name__, error)
            await self._coordinator.ask(f"/v1/attempts/{id_}/lost")

    async def _trajectory(self, id_: str, group: str, task: Task) -> Trajectory:
        opened = {"id": id_, "task_id": task["id"], "group_id": group}
        key = (await self._proxy.ask("/rl/sessions", opened)).json()["key"]
        ending = await self._ending(task, key)
        body = await self._proxy.ask(f"/rl/sessions/{key}/end", {"termination": ending.termination})
        trajectory = load_trajectory(body.content)
        ending = replace(ending, termination=trajectory.termination)
        with self._clock.waiting("reward", share=1 / self._slots):
            return replace(trajectory, reward=await reward_of(self._reward, task, ending, trajectory))

    async def _ending(self, task: Task, key: str) -> Ending:
        try:
            async with asyncio.timeout(self._config.agent.seconds):
                with self._clock.waiting("agent", share=1 / self._slots):
                    return await self._play(task, f"{self._config.proxy}/session/{key}/v1", key)
        except TimeoutError:
            return Ending(Termination.TIME_LIMIT)
        except Exception as error:  # the agent is anybody's code
            log.warning("the agent failed on task %s", task["id"], exc_info=True)
            return Ending(Termination.INFRASTRUCTURE, detail=f"{type(error).__name__}: {error}")

    async def _stay_alive(self) -> None:
        """Tells the coordinator, and stops attempts that it wants no more."""
        while True:
            await asyncio.sleep(self._config.lease_seconds / 5)
            said = {"sampler": self._name, "playing": list(self._playing)}
            for id_ in (await self._coordinator.ask("/v1/attempts/alive", said)).json()["stop"]:
                if id_ in self._playing:
                    self._playing[id_].cancel()
