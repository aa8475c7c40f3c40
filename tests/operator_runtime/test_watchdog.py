"""Liveness notices silence and stuck keys, and only the leader's queue counts."""

from __future__ import annotations

from pinnace_operator.runtime.watchdog import Pulse, Watchdog


class World:
    def __init__(self) -> None:
        self.now = 0.0
        self.oldest = 0.0
        self.leads = True
        self.pulse = Pulse(clock=lambda: self.now)
        self.watchdog = Watchdog(
            pulse=self.pulse,
            oldest_key=lambda: self.oldest,
            leads=lambda: self.leads,
            max_watch_age=300,
            max_key_age=600,
        )


def test_a_watch_that_was_never_heard_of_is_dead_after_its_limit_and_not_ready_before() -> None:
    world = World()
    world.pulse.expect(["/pods"])
    assert world.watchdog.dead() == []
    assert "/pods" in world.watchdog.not_ready()[0]
    world.now = 301
    assert "/pods" in world.watchdog.dead()[0]


def test_one_silent_watch_among_live_ones_is_enough() -> None:
    world = World()
    world.pulse.expect(["/pods", "/jobsets"])
    world.now = 200
    world.pulse.beat("/pods")
    world.now = 301
    assert [each for each in world.watchdog.dead() if "/jobsets" in each]
    assert not [each for each in world.watchdog.dead() if "/pods" in each]


def test_every_sign_of_life_counts() -> None:
    world = World()
    world.pulse.expect(["/pods"])
    for _ in range(10):
        world.now += 200
        world.pulse.beat("/pods")
        assert world.watchdog.dead() == []
    assert world.watchdog.not_ready() == []


def test_a_stuck_queue_is_fatal_for_the_leader_only() -> None:
    world = World()
    world.oldest = 601
    assert "601 s" in world.watchdog.dead()[0]
    world.leads = False
    assert world.watchdog.dead() == []
