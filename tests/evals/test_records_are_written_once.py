"""Records and leases in a folder and in a real S3."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from pinnace.agent import Event, EventLog, Summary
from pinnace.agent.events import Began, Ended, Turned
from pinnace.evals import Blobs, FolderBlobs, Grade, Place, Record, Records, Unit, Verdict
from pinnace.evals.lease import Leases
from pinnace.evals.records import Checkpointer, config_hash

PLACE = Place("gaia", "validation", "sha256:" + "ab" * 32, "c" * 64)
UNIT = Unit("item 1", "item-1", 0)


def record(answer: str) -> Record:
    return Record(
        benchmark="gaia", split="validation", revision=PLACE.revision, item="item 1", attempt=0, config=PLACE.config,
        question="Q", answer=answer, summary=Summary(termination="answered"),
    )  # fmt: skip


def log(answer: str) -> EventLog:
    return EventLog([Began(question="Q"), Turned(content=answer), Ended(termination="answered", answer=answer)])


def test_only_one_of_many_wins(blobs: Blobs) -> None:
    start, won = threading.Barrier(8), list[int]()

    def claim(number: int) -> None:
        start.wait()
        if blobs.claim("a/b.json", str(number).encode()):
            won.append(number)

    threads = [threading.Thread(target=claim, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert blobs.get("a/b.json") == str(won[0]).encode()
    assert blobs.claim("a/b.json", str(won[0]).encode()), "asked again after an answer was lost, the winner is told so"


def test_names_and_deletion(blobs: Blobs) -> None:
    for name in ("x/2.json", "x/1.json", "x/y/3.json", "xz/4.json"):
        blobs.put(name, b"1")
    assert list(blobs.names("x")) == ["x/1.json", "x/2.json", "x/y/3.json"]
    blobs.delete(["x/1.json", "x/never.json"])
    assert list(blobs.names("x")) == ["x/2.json", "x/y/3.json"]
    assert blobs.get("x/1.json") is None
    assert list(blobs.names("nothing")) == []


def test_the_first_record_counts(blobs: Blobs) -> None:
    records = Records(blobs, PLACE)
    assert records.write(UNIT, record("first"), log("first"))
    assert not records.write(UNIT, record("second"), log("second"))
    assert records.read([UNIT])[UNIT].answer == "first"
    assert records.trajectory(UNIT)[-1] == log("first")[-1]
    assert records.finished() == {("item-1", 0)}
    assert Records(blobs, Place("gaia", "validation", PLACE.revision, "d" * 64)).finished() == set()


def test_verdicts_of_two_graders_lie_side_by_side(blobs: Blobs) -> None:
    records = Records(blobs, PLACE)
    records.write_grade(UNIT, "rule:gaia:1", Grade(verdict=Verdict.RIGHT))
    records.write_grade(UNIT, "judge:x@model", Grade(verdict=Verdict.UNKNOWN))
    assert records.read_grades([UNIT], "rule:gaia:1")[UNIT].verdict is Verdict.RIGHT
    assert records.read_grades([UNIT], "judge:x@model")[UNIT].verdict is Verdict.UNKNOWN
    assert records.read_grades([UNIT], "judge:x@other") == {}


def test_a_trajectory_is_there_piece_by_piece_and_whole_at_the_end(blobs: Blobs) -> None:
    records, events = Records(blobs, PLACE), list[Event](log("a"))
    first = Checkpointer(records, UNIT)
    first(events[0])
    first.flush()
    first(events[1])  # was not written when the worker died
    assert records.trajectory(UNIT) == events[:1]
    second = Checkpointer(records, UNIT, written=1)
    second(events[1])
    second.flush()
    assert records.trajectory(UNIT) == events[:2]
    records.write(UNIT, record("a"), log("a"))
    records.write(UNIT, record("late"), log("late"))
    records.clean(UNIT)
    assert records.trajectory(UNIT) == events
    assert len(list(blobs.names(PLACE.of(UNIT)))) == 2
    assert not list(blobs.names(f"{PLACE.of(UNIT)}/events")), "the pieces stay"


def test_nothing_is_written_after_the_trajectory_is_closed(tmp_path: Path) -> None:
    records = Records(FolderBlobs(tmp_path), PLACE)
    checkpointer = Checkpointer(records, UNIT)
    checkpointer(log("a")[0])
    checkpointer.close()
    checkpointer.flush()
    assert records.pieces(UNIT) == ([], 0)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_lease_keeps_others_away_until_it_is_silent_for_its_time_to_live(blobs: Blobs) -> None:
    clock = Clock()
    first, second = Leases(blobs, "shard-0", 60), Leases(blobs, "shard-1", 60, clock)
    lease = first.acquire("l")
    assert lease is not None
    assert second.acquire("l") is None
    clock.now = 59
    assert second.acquire("l") is None
    assert lease.renew()
    clock.now = 61
    assert second.acquire("l") is None, "it was renewed a moment ago"
    clock.now = 122
    taken = second.acquire("l")
    assert taken is not None
    assert taken.generation == 1
    assert not lease.renew(), "who lost the lease must notice"
    assert taken.renew()


def test_only_one_takes_over_a_dead_lease(blobs: Blobs) -> None:
    Leases(blobs, "dead", 60).acquire("l")
    clocks = [Clock() for _ in range(6)]
    others = [Leases(blobs, f"shard-{number}", 60, clock) for number, clock in enumerate(clocks)]
    assert all(each.acquire("l") is None for each in others)
    for clock in clocks:
        clock.now = 61
    start, won = threading.Barrier(6), list[str]()

    def take(leases: Leases) -> None:
        start.wait()
        if leases.acquire("l") is not None:
            won.append(leases.owner)

    threads = [threading.Thread(target=take, args=(each,)) for each in others]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1


def test_a_shard_that_was_restarted_need_not_wait_for_itself(tmp_path: Path) -> None:
    blobs = FolderBlobs(tmp_path)
    first = Leases(blobs, "shard-0", 60)
    lease = first.acquire("l")
    assert lease is not None
    assert first.acquire("l") is None, "but it may not hold one lease twice"
    assert Leases(blobs, "shard-0", 60).acquire("l") is not None
    assert not lease.renew()


def test_a_lease_that_was_released_is_free(tmp_path: Path) -> None:
    blobs = FolderBlobs(tmp_path)
    lease = Leases(blobs, "shard-0", 60).acquire("l")
    assert lease is not None
    lease.release()
    assert Leases(blobs, "shard-1", 60).acquire("l") is not None


@pytest.mark.parametrize("change", [{"model": "b"}, {"sampling": {"t": 1}}, {"policyHash": "x"}])
def test_another_configuration_has_another_hash(change: dict[str, object]) -> None:
    base = {"model": "a", "sampling": {"t": 0}, "policyHash": "y"}
    assert config_hash(base) == config_hash(dict(reversed(base.items())))
    assert config_hash({**base, **change}) != config_hash(base)
