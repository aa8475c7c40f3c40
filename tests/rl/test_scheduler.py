"""Runs in virtual time: heavy tails, storms of failures, servers that vanish. What must hold holds at every event."""

from __future__ import annotations

import heapq
import random
from collections import Counter
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pinnace.rl.scheduler import InvalidSchedule, Schedule, Scheduler, Slot
from pinnace.rl.types import Reward, Trajectory

from .conftest import trajectory

SMALL = Schedule(groups_per_step=2, group_size=2, max_staleness=1, concurrency=100)


@dataclass
class World:
    """Servers, a trainer and a clock. An attempt takes heavy-tailed time and writes with the policy it began with."""

    schedule: Schedule
    seed: int = 0
    servers: int = 4
    step_seconds: float = 5.0
    unknown: float = 0.05
    zero_variance: float = 0.1
    storm: tuple[float, float] = (0.0, 0.0)  # from, to: nearly everything ends unknown
    losses: list[float] = field(default_factory=list)  # when a server vanishes with all that it runs

    def __post_init__(self) -> None:
        self.dice = random.Random(self.seed)
        self.scheduler = Scheduler(self.schedule)
        self.events: list[tuple[float, int, str, Slot | int | None]] = []
        self.order = 0
        self.now = 0.0
        self.alive: dict[Slot, tuple[int, int]] = {}  # server, policy version at launch
        self.training: int | None = None
        self.trained: Counter[str] = Counter()
        self.staleness: list[int] = []
        self.launches = 0

    def at(self, delay: float, kind: str, what: Slot | int | None = None) -> None:
        self.order += 1
        heapq.heappush(self.events, (self.now + delay, self.order, kind, what))

    def launch(self, slot: Slot) -> None:
        assert slot not in self.alive
        self.launches += 1
        self.alive[slot] = (self.dice.randrange(self.servers), self.scheduler.version)
        self.at(self.dice.paretovariate(1.3), "done", slot)

    def result(self, slot: Slot, version: int) -> Trajectory:
        storming = self.storm[0] <= self.now < self.storm[1]
        name = f"{slot.group}-{slot.member}-{slot.launch}"
        if self.dice.random() < (0.95 if storming else self.unknown):
            return trajectory(name, reward=Reward.unknown("infrastructure"), version=version)
        return trajectory(name, reward=float(self.dice.random() < 0.5), version=version)

    def run(self, steps: int, *, limit: int = 200_000) -> World:
        for moment in self.losses:
            self.at(moment, "loss")
        self.serve()
        for _ in range(limit):
            if self.scheduler.version >= steps:
                return self
            assert self.events, f"stuck at step {self.scheduler.version}: {self.scheduler.counts}"
            self.now, _, kind, what = heapq.heappop(self.events)
            getattr(self, f"on_{kind}")(what)
            if self.scheduler.version < steps:
                self.serve()
            assert self.scheduler.running == len(self.alive) <= self.schedule.concurrency
        raise AssertionError(f"not done after {limit} events: {self.scheduler.counts}")

    def serve(self) -> None:
        if self.training is None:
            self.train()
        for slot in self.scheduler.admit():
            self.launch(slot)

    def train(self) -> None:
        for number, members in self.scheduler.complete().items():
            dull = random.Random(f"{self.seed}-{number}").random() < self.zero_variance
            if dull or sum(member.reward.value is not None for member in members) < 2:
                self.scheduler.discard(number, "zero_variance")
        batch = self.scheduler.cut()
        if batch is not None:
            for members in batch.values():
                for member in members:
                    self.trained[member.id] += 1
                    self.staleness.append(self.scheduler.version - (member.oldest_version or 0))
            self.training = self.scheduler.version + 1
            self.at(self.step_seconds, "step", self.training)

    def on_done(self, slot: Slot) -> None:
        if slot in self.alive:
            _, version = self.alive.pop(slot)
            again = self.scheduler.finished(slot, self.result(slot, version))
            if again:
                self.launch(again)

    def on_loss(self, _: None) -> None:
        gone = self.dice.randrange(self.servers)
        for slot in [slot for slot, (server, _) in self.alive.items() if server == gone]:
            del self.alive[slot]
            again = self.scheduler.lost(slot)
            assert again is not None
            self.launch(again)

    def on_step(self, version: int) -> None:
        self.training = None
        for slot in self.scheduler.stepped(version):
            del self.alive[slot]


schedules = st.builds(
    Schedule,
    groups_per_step=st.integers(1, 4),
    group_size=st.integers(2, 4),
    max_staleness=st.integers(0, 4),
    concurrency=st.integers(4, 40),
    attempts=st.integers(1, 3),
)


@given(schedules, st.integers(0, 10_000), st.floats(0, 30), st.lists(st.floats(0, 80), max_size=5))
@settings(max_examples=60, deadline=None)
def test_a_run_finishes_fresh_and_trains_nothing_twice(
    schedule: Schedule, seed: int, storm: float, losses: list[float]
) -> None:
    world = World(schedule, seed, storm=(storm, storm + 20), losses=losses).run(12)
    assert max(world.staleness) <= schedule.max_staleness
    assert set(world.trained.values()) == {1}
    assert len(world.staleness) == 12 * schedule.groups_per_step * schedule.group_size


def test_the_same_seed_gives_the_same_run() -> None:
    first, second = (World(SMALL, 7, losses=[3.0, 9.0]).run(20) for _ in range(2))
    assert (first.now, first.trained, first.scheduler.counts) == (second.now, second.trained, second.scheduler.counts)


def test_staleness_0_is_synchronous() -> None:
    world = World(Schedule(groups_per_step=2, group_size=2, max_staleness=0, concurrency=100)).run(20)
    assert set(world.staleness) == {0}


def test_heavy_tails_hold_up_a_synchronous_run_and_not_an_asynchronous_one() -> None:
    """Same servers, same trainer, same number of samples; virtual seconds."""

    def seconds(staleness: int) -> float:
        plan = Schedule(groups_per_step=4, group_size=4, max_staleness=staleness, concurrency=64)
        return World(plan, 3, step_seconds=10.0).run(60).now

    assert seconds(0) > 1.5 * seconds(4)


def test_admission_follows_areal_s_formula() -> None:
    """(η + version + 1)·B groups may have been started by then; a step makes room for B more."""
    scheduler = Scheduler(SMALL)
    started = scheduler.admit()
    assert len({slot.group for slot in started}) == (1 + 0 + 1) * 2
    assert scheduler.admit() == []
    finish(scheduler, started)
    assert scheduler.admit() == []  # finished, but not trained
    assert scheduler.cut() is not None
    assert scheduler.admit() == []  # trained with version 0: the next version is not there yet
    scheduler.stepped(1)
    assert len({slot.group for slot in scheduler.admit()}) == 2


def test_concurrency_limits_whole_groups() -> None:
    scheduler = Scheduler(Schedule(groups_per_step=9, group_size=3, max_staleness=9, concurrency=8))
    assert len(scheduler.admit()) == 6


def finish(scheduler: Scheduler, slots: list[Slot], version: int = 0) -> None:
    for slot in slots:
        assert scheduler.finished(slot, trajectory(f"{slot}", reward=float(slot.member), version=version)) is None


def test_a_discarded_group_is_refilled() -> None:
    scheduler = Scheduler(SMALL)
    finish(scheduler, scheduler.admit())
    scheduler.discard(0, "zero_variance")
    assert {slot.group for slot in scheduler.admit()} == {4}
    assert scheduler.counts == {"group_zero_variance": 1}


def test_the_cut_refuses_what_admission_could_not_foresee() -> None:
    """Three versions pass while a group is sampled, though it was admitted for one."""
    scheduler = Scheduler(SMALL)
    slots = scheduler.admit()
    finish(scheduler, [slot for slot in slots if slot.group > 0 or slot.member > 0])
    aborted = scheduler.stepped(2)
    assert aborted == [Slot(0, 0, 0)]
    assert scheduler.counts["group_stale"] == 4
    assert scheduler.cut() is None
    assert scheduler.finished(Slot(0, 0, 0), trajectory()) is None  # too late: nobody waits for it
    assert scheduler.counts["late_news"] == 1


def test_a_trajectory_of_a_server_that_missed_its_updates_is_sampled_again() -> None:
    scheduler = Scheduler(SMALL, version=5)
    slot = scheduler.admit()[0]
    again = scheduler.finished(slot, trajectory(version=3))
    assert again == slot._replace(launch=1)
    assert scheduler.counts == {"stale_on_arrival": 1}


def test_unknown_is_tried_again_and_then_the_group_goes_on_without_it() -> None:
    scheduler = Scheduler(SMALL)
    slot: Slot | None = scheduler.admit()[0]
    for _ in range(SMALL.attempts):
        assert slot is not None
        slot = scheduler.finished(slot, trajectory(reward=Reward.unknown("judge")))
    assert slot is None
    assert scheduler.counts == {"retried_unknown": 2}


def test_a_lost_attempt_costs_no_try_and_its_late_answer_is_not_taken_twice() -> None:
    scheduler = Scheduler(SMALL)
    first = scheduler.admit()[0]
    second = scheduler.lost(first)
    assert second is not None
    assert scheduler.finished(first, trajectory("late")) is None
    assert scheduler.running == 8
    assert scheduler.finished(second, trajectory("good")) is None
    assert scheduler.running == 7


def test_a_restart_does_not_start_a_burst() -> None:
    assert len(Scheduler(SMALL, version=40).admit()) == len(Scheduler(SMALL).admit())


def test_a_restart_keeps_what_was_sampled_and_samples_the_rest() -> None:
    kept = [trajectory("4-0-0", reward=1.0, version=6), trajectory("5-0-0", version=7), trajectory("5-1-2", version=7)]
    old = trajectory("3-0-0", version=2)
    scheduler = Scheduler(SMALL, version=7)
    launched = scheduler.restore([*kept, old], ids=["0-0-0", "9-1-0", *(one.id for one in kept)])
    assert launched == [Slot(4, 1, 0)]
    assert scheduler.complete() == {5: kept[1:]}
    assert scheduler.counts == {"group_stale": 1}
    assert min(slot.group for slot in scheduler.admit()) == 10  # no number is given twice


@pytest.mark.parametrize(
    ("changes", "remedy"),
    [
        ({"group_size": 1}, "at least 2 attempts"),
        ({"concurrency": 1}, "raise it, or lower group_size"),
        ({"max_staleness": -1}, "max_staleness at least 0"),
    ],
)
def test_settings_that_cannot_work_are_refused(changes: dict[str, int], remedy: str) -> None:
    with pytest.raises(InvalidSchedule, match=remedy):
        Schedule(**{"groups_per_step": 1, "group_size": 2, "max_staleness": 0, "concurrency": 8, **changes})


def test_versions_only_grow() -> None:
    with pytest.raises(ValueError, match="versions only grow"):
        Scheduler(SMALL, version=3).stepped(3)
