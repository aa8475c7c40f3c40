"""The coordinator's state: scheduler, store and leases, kept in step. No HTTP and no clock of its own."""

from __future__ import annotations

import math
import random
import statistics
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from pinnace.rl.config import RunConfig, Task
from pinnace.rl.metrics import labelled
from pinnace.rl.scheduler import Scheduler, Slot
from pinnace.rl.signal.denoise import denoise
from pinnace.rl.store import TrajectoryStore
from pinnace.rl.types import Trajectory


class OutOfStep(RuntimeError):
    """A trainer speaks of another step or version than the ledger knows: two trainers, or one that missed a resume."""


@dataclass
class _Lease:
    sampler: str
    until: float


@dataclass
class Ledger:
    """Who plays what, and what becomes of it.

    A trajectory is on disk before its sender is told so. What can't get into a step any more is dropped from the store
    with the step that was under way, so that a rewind to before it brings it back.
    """

    config: RunConfig
    store: TrajectoryStore
    tasks: Sequence[Task]
    counts: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._leases: dict[str, _Lease] = {}
        self._waiting = deque[Slot]()
        self._judged = set[int]()
        plan = self.config.schedule
        self._rewards = deque[float](maxlen=plan.groups_per_step * plan.group_size)
        self._unused = set[str]()  # in the store, and no step's
        self.finished = self.store.acknowledged >= self.config.steps
        self._scheduler = Scheduler(self.config.schedule, version=self.store.version or 0)
        self._served = -math.inf if self.store.version is None else self.store.version
        if self.store.version is not None:
            self._restore()

    @property
    def version(self) -> int:
        return self._scheduler.version

    @property
    def reward(self) -> float:
        """Mean of the newest attempts, as many as a step has. Those count, too, whose groups are refilled."""
        return statistics.fmean(self._rewards) if self._rewards else 0.0

    def begin(self, step: int, published: int | None, newest_group: int | None) -> int:
        """A trainer starts from the checkpoint of `step`; returns the version to publish its weights as.

        `published` is the newest version whose weights are to be found. A number is never given to other weights again.
        `newest_group` is the newest that was trained: the tasks after it are next, also where our disk is a new one.
        """
        known = [version for version in (self.store.version, published) if version is not None]
        version = max(known) + 1 if known else 0
        self.counts["rewound_trajectories"] += self.store.rewind(step)
        self._go_on(step, version, newest_group)
        self._served = -math.inf
        return version

    def take(self, sampler: str, limit: int, *, now: float) -> list[Slot]:
        """Attempts for a sampler to play, at most `limit`.

        None while as much runs as may, or while the servers' weights are so old that what they write would be dropped.
        """
        if self.finished or self._served < self.version - self.config.schedule.max_staleness:
            return []
        if not any(map(self._scheduler.runs, self._waiting)):
            self._waiting.clear()
            self._waiting.extend(self._scheduler.admit())
        given = list[Slot]()
        while self._waiting and len(given) < limit:
            if self._scheduler.runs(slot := self._waiting.popleft()):
                given.append(slot)
        for slot in given:
            self._leases[slot.id] = _Lease(sampler, now + self.config.lease_seconds)
        return given

    def task(self, slot: Slot) -> Task:
        """Shuffled anew each time round; the same for the same group, whoever asks and whenever."""
        round_, place = divmod(slot.group, len(self.tasks))
        order = list(range(len(self.tasks)))
        random.Random(f"{self.config.seed}-{round_}").shuffle(order)  # noqa: S311 - the order of data, no secret
        return self.tasks[order[place]]

    def alive(self, sampler: str, playing: Iterable[str], *, now: float) -> list[str]:
        """A sampler's sign of life. Returns which of its attempts nobody waits for any more, for it to stop."""
        unwanted = []
        for id_ in playing:
            lease = self._leases.get(id_)
            if lease is None or lease.sampler != sampler:
                unwanted.append(id_)
            else:
                lease.until = now + self.config.lease_seconds
        return unwanted

    def deliver(self, trajectory: Trajectory) -> None:
        """Durable on return, and only counted once."""
        slot = Slot.parse(trajectory.id)
        if not self.store.append(trajectory):
            return
        if trajectory.reward.value is not None:
            self._rewards.append(trajectory.reward.value)
        self._unused.add(trajectory.id)
        self._leases.pop(trajectory.id, None)
        self._again(self._scheduler.finished(slot, trajectory))
        self._settle()

    def lost(self, id_: str) -> None:
        """An attempt ended without a trajectory; it is played again."""
        self._leases.pop(id_, None)
        self._again(self._scheduler.lost(Slot.parse(id_)))

    def expire(self, *, now: float) -> None:
        """Attempts of samplers that are silent too long are lost."""
        for id_ in [id_ for id_, lease in self._leases.items() if lease.until < now]:
            self.counts["expired_leases"] += 1
            self.lost(id_)

    def batch(self, step: int, version: int, newest_group: int | None) -> list[Trajectory]:
        """The step's trajectories, claimed for it; empty while there are too few. Asking again gives the same.

        `version` and `newest_group` are the trainer's: where our disk is a new one, they are all that is known.
        """
        if self.store.version is None:
            self._go_on(step - 1, version, newest_group)
        if claimed := self.store.batch(step):
            return claimed
        if step != self.store.step + 1:
            raise OutOfStep(f"step {step} was asked for, and step {self.store.step} is done: is there another trainer?")
        groups = self._scheduler.cut()
        if groups is None:
            return []
        self.store.claim(ids := [one.id for members in groups.values() for one in members], step=step)
        self._unused.difference_update(ids)
        self._judged -= groups.keys()
        return self.store.batch(step)

    def stepped(self, step: int, version: int, newest_group: int | None) -> None:
        """The trainer has made `step` and is about to publish it as `version`. May be told twice."""
        if self.store.version is None:
            self._go_on(step, version, newest_group)
        if (step, version) == (self.store.step, self.store.version):
            return
        if step != self.store.step + 1 or version != self.version + 1:
            raise OutOfStep(
                f"step {step} as version {version}, after step {self.store.step} as version {self.version}: another "
                "trainer took over; stop this one"
            )
        self.store.reserve(version, step=step)
        for slot in self._scheduler.stepped(version):
            self._leases.pop(slot.id, None)
        self._settle()

    def served(self, version: int) -> None:
        """A server answers with the weights of `version`."""
        self._served = max(self._served, version)

    def ack(self, step: int) -> None:
        """The checkpoint of `step` is durable."""
        self.store.ack(step)
        self.finished = step >= self.config.steps

    def values(self) -> dict[str, float]:
        """For the metrics."""
        return {
            "policy_version": self.version,
            "step": self.store.step,
            "acknowledged_step": self.store.acknowledged,
            "attempts_running": self._scheduler.running,
            "attempts_leased": len(self._leases),
            "groups_ready": self._scheduler.ready,
            "reward": self.reward,
            **labelled("trajectories", "state", self.store.counts()),
            **labelled("events", "kind", self.counts + self._scheduler.counts),
        }

    def _go_on(self, step: int, version: int, newest_group: int | None) -> None:
        self.store.reserve(version, step=step)
        self._scheduler = Scheduler(self.config.schedule, version=version)
        self._served = version
        self.finished = step >= self.config.steps
        self._restore(first_group=0 if newest_group is None else newest_group + 1)

    def _restore(self, first_group: int = 0) -> None:
        self._leases.clear()
        self._judged.clear()
        waiting = list(self.store.waiting())
        self._unused = {one.id for one in waiting}
        self._waiting = deque(self._scheduler.restore(waiting, ids=self.store.ids(), first_group=first_group))
        self._settle()

    def _again(self, slot: Slot | None) -> None:
        if slot is not None:
            self._waiting.append(slot)

    def _settle(self) -> None:
        """Groups with nothing to learn leave; so do trajectories that no group holds."""
        for number, members in self._scheduler.complete().items():
            if number not in self._judged:
                self._judged.add(number)
                denoised = denoise(members, self.config.denoising)
                self.counts.update(denoised.counts)
                if denoised.refill:
                    self._scheduler.discard(number, denoised.refill)
        if dropped := self._unused - self._scheduler.held:
            self.store.drop(dropped, step=self.store.step + 1, reason="unused")
            self._unused -= dropped
