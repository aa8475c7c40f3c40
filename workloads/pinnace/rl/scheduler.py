"""Which attempts run, and which groups make the next optimizer step. No I/O and no clock: a state machine.

Two bounds keep samples fresh. *Admission* (AReaL, Fu et al. 2025, §5.1) starts no more than will be trainable:
capacity = min(concurrency - running, (η + version + 1)·B - (accepted + running)). It is a forecast, so the *cut* is the
law: no trajectory with a token older than η versions gets into a step, whatever happened in between.

A group that can't be used (too old, nothing to learn, too few known rewards) leaves `accepted`, so admission starts
another in its place. A step takes the complete groups that are oldest, so stragglers delay nobody; those that can't
finish in time any more are returned by `stepped`, to be aborted. Their group goes with them: to train on its quick
members only would teach haste.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from pinnace.rl.types import SETTINGS, Trajectory, Verdict


class InvalidSchedule(ValueError):
    """Settings that can't work; the message says what to change."""


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How much runs at once and how old it may get.

    Attributes:
        groups_per_step: groups of one optimizer step.
        group_size: attempts at one task.
        max_staleness: η, in policy versions; 0 is synchronous.
        concurrency: the most attempts that run at the same time.
        attempts: how often a member is tried until its reward is known, before the group goes on without it.
    """

    __pydantic_config__ = SETTINGS

    groups_per_step: int
    group_size: int
    max_staleness: int
    concurrency: int
    attempts: int = 3

    def __post_init__(self) -> None:
        if self.group_size < 2:
            raise InvalidSchedule(f"group_size is {self.group_size}: a baseline needs at least 2 attempts at a task")
        if self.groups_per_step < 1 or self.attempts < 1 or self.max_staleness < 0:
            raise InvalidSchedule("groups_per_step and attempts must be at least 1, max_staleness at least 0")
        if self.concurrency < self.group_size:
            raise InvalidSchedule(
                f"concurrency {self.concurrency} holds no group of {self.group_size}: raise it, or lower group_size"
            )


class Slot(NamedTuple):
    """One launch of a group's member; a member that is launched again gets a new slot."""

    group: int
    member: int
    launch: int

    @property
    def id(self) -> str:
        """The id of its trajectory, by which the store knows it."""
        return "-".join(map(str, self))

    @classmethod
    def parse(cls, id_: str) -> Slot:
        return cls(*map(int, id_.split("-")))


@dataclass
class _Group:
    running: dict[int, Slot] = field(default_factory=dict)  # by member
    started: dict[int, int] = field(default_factory=dict)  # policy version at launch, by member
    unknown: Counter[int] = field(default_factory=Counter)  # tries that ended without a known reward, by member
    done: dict[int, Trajectory] = field(default_factory=dict)

    @property
    def oldest(self) -> int:
        """The oldest policy of any token in it, supposing that running attempts wrote some as they were launched."""
        written = (trajectory.oldest_version for trajectory in self.done.values())
        ages = [version for version in written if version is not None] + [
            self.started[member] for member in self.running
        ]
        return min(ages, default=max(self.started.values()))


class Scheduler:
    """The state of one run's sampling. Callers start what `admit` returns and report how each attempt ended."""

    def __init__(self, schedule: Schedule, *, version: int = 0) -> None:
        """After a restart `version` is the checkpoint's: counting begins as if each step had taken its groups."""
        self._schedule = schedule
        self._groups: dict[int, _Group] = {}
        self._next = 0
        self.version = version
        self._consumed = version * schedule.groups_per_step
        self.counts: Counter[str] = Counter()

    @property
    def running(self) -> int:
        return sum(len(group.running) for group in self._groups.values())

    @property
    def ready(self) -> int:
        """Complete groups."""
        return sum(not group.running for group in self._groups.values())

    @property
    def held(self) -> set[str]:
        """Ids of the trajectories that may yet get into a step."""
        return {one.id for group in self._groups.values() for one in group.done.values()}

    def admit(self) -> list[Slot]:
        """Whole new groups, as many as both limits allow. The caller must start every attempt that it gets."""
        plan = self._schedule
        free = (plan.concurrency - self.running) // plan.group_size
        trainable = (plan.max_staleness + self.version + 1) * plan.groups_per_step
        started = []
        for _ in range(max(0, min(free, trainable - self._consumed - len(self._groups)))):
            group = self._groups[self._next] = _Group()
            started += [self._launch(self._next, group, member, 0) for member in range(plan.group_size)]
            self._next += 1
        return started

    def restore(self, waiting: Iterable[Trajectory], *, ids: Iterable[str], first_group: int = 0) -> list[Slot]:
        """Takes back what a store kept over a restart; returns the missing members' slots, all to be launched.

        `ids` are those of all trajectories that the store has ever seen: their groups' numbers are not given again, and
        none below `first_group`.
        """
        seen = [Slot.parse(id_) for id_ in ids]
        self._next = max([first_group, *(slot.group + 1 for slot in seen)])
        launches = {(slot.group, slot.member): slot.launch + 1 for slot in sorted(seen)}
        for slot, trajectory in sorted((Slot.parse(one.id), one) for one in waiting):
            group = self._groups.setdefault(slot.group, _Group())
            group.done[slot.member], group.started[slot.member] = trajectory, self.version
        self._discard_stale()
        return [
            self._launch(number, group, member, launches.get((number, member), 0))
            for number, group in self._groups.items()
            for member in range(self._schedule.group_size)
            if member not in group.done
        ]

    def finished(self, slot: Slot, trajectory: Trajectory) -> Slot | None:
        """Takes a trajectory. Returns the slot to launch instead when it can't be used.

        That is when its reward is unknown and tries are left, or when a server wrote it with a policy that is too old.
        """
        group = self._group(slot)
        if group is None:
            return None
        oldest = trajectory.oldest_version
        if oldest is not None and oldest < self._bound:
            return self._again(group, slot, "stale_on_arrival")
        if trajectory.reward.verdict is Verdict.UNKNOWN:
            group.unknown[slot.member] += 1
            if group.unknown[slot.member] < self._schedule.attempts:
                return self._again(group, slot, "retried_unknown")
        del group.running[slot.member]
        group.done[slot.member] = trajectory
        return None

    def runs(self, slot: Slot) -> bool:
        """Whether anybody waits for this attempt."""
        group = self._groups.get(slot.group)
        return group is not None and group.running.get(slot.member) == slot

    def lost(self, slot: Slot) -> Slot | None:
        """An attempt is gone without a trajectory (its server or pod died). Returns the slot to launch instead.

        Losing is never the attempt's fault, so it costs no try.
        """
        group = self._group(slot)
        return None if group is None else self._again(group, slot, "relaunched_lost")

    def discard(self, group: int, reason: str) -> None:
        """The signal found nothing to learn in a group: it leaves, and `admit` will refill its place."""
        if self._groups.pop(group, None) is not None:
            self.counts[f"group_{reason}"] += 1

    def complete(self) -> dict[int, list[Trajectory]]:
        """Groups of which nothing runs any more, the oldest first."""
        done = [(group.oldest, number) for number, group in self._groups.items() if not group.running]
        return {
            number: [member for _, member in sorted(self._groups[number].done.items())] for _, number in sorted(done)
        }

    def cut(self) -> dict[int, list[Trajectory]] | None:
        """The groups of the next optimizer step, taken out; None while there are too few. Then call `stepped`."""
        batch = dict(list(self.complete().items())[: self._schedule.groups_per_step])
        if len(batch) < self._schedule.groups_per_step:
            return None
        for number in batch:
            del self._groups[number]
        self._consumed += len(batch)
        return batch

    def stepped(self, version: int) -> list[Slot]:
        """The policy has a new version: drops groups that are too old now; returns their running attempts, to abort.

        Raises ValueError if the version is not newer: versions only grow.
        """
        if version <= self.version:
            raise ValueError(f"policy version {version} after {self.version}: versions only grow")
        self.version = version
        return self._discard_stale()

    def _discard_stale(self) -> list[Slot]:
        old = [number for number, group in self._groups.items() if group.oldest < self._bound]
        aborted = [slot for number in old for slot in self._groups[number].running.values()]
        for number in old:
            self.discard(number, "stale")
        return aborted

    @property
    def _bound(self) -> int:
        """The oldest policy version that may be in the next step."""
        return self.version - self._schedule.max_staleness

    def _group(self, slot: Slot) -> _Group | None:
        """None for news of an attempt that nobody waits for: aborted, or reported twice."""
        if not self.runs(slot):
            self.counts["late_news"] += 1
            return None
        return self._groups[slot.group]

    def _again(self, group: _Group, slot: Slot, reason: str) -> Slot:
        self.counts[reason] += 1
        return self._launch(slot.group, group, slot.member, slot.launch + 1)

    def _launch(self, number: int, group: _Group, member: int, launch: int) -> Slot:
        slot = group.running[member] = Slot(number, member, launch)
        group.started[member] = self.version
        return slot
