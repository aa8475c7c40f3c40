"""Whoever dies, and whenever: nothing is trained twice in the history of the surviving weights, nothing is lost."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest
from pinnace.rl.config import RunConfig
from pinnace.rl.control.ledger import Ledger, OutOfStep
from pinnace.rl.store import TrajectoryStore
from pinnace.rl.types import Reward

from .conftest import trajectory
from .runs import document


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    return RunConfig.model_validate(document(tmp_path, tmp_path, steps=30))


def opened(config: RunConfig) -> Ledger:
    config.folder.mkdir(exist_ok=True)
    return Ledger(config, TrajectoryStore(config.folder / "run.db"), config.read_tasks())


def begun(config: RunConfig) -> Ledger:
    ledger = opened(config)
    ledger.served(ledger.begin(0, None, None))
    return ledger


def play(ledger: Ledger, slots: list, *, reward: float | Reward | None = None) -> None:
    """Every other attempt is right, so that each group has something to learn from."""
    for slot in slots:
        given = float(slot.member % 2) if reward is None else reward
        ledger.deliver(trajectory(slot.id, reward=given, version=ledger.version, group=str(slot.group)))


def test_tasks_go_on_after_the_trained_ones_where_the_coordinator_has_lost_its_disk(config: RunConfig) -> None:
    ledger = opened(config)
    ledger.served(ledger.begin(6, 9, 40))
    assert {slot.group for slot in ledger.take("s", 8, now=0)} == {41, 42, 43, 44}


def test_a_coordinator_that_has_lost_its_disk_goes_on_with_the_trainer_where_it_is(config: RunConfig) -> None:
    for tell in (lambda ledger: ledger.batch(7, 9, 40), lambda ledger: ledger.stepped(6, 9, 40)):
        ledger = opened(config)
        tell(ledger)
        assert (ledger.version, ledger.store.step) == (9, 6)
        play(ledger, taken := ledger.take("s", 8, now=0))
        assert {slot.group for slot in taken} == {41, 42, 43, 44}
        assert len(ledger.batch(7, 9, 40)) == 4
        ledger.stepped(7, 10, 42)
        with pytest.raises(OutOfStep, match="another trainer"):
            ledger.batch(12, 14, 60)
        ledger.store.close()
        (config.folder / "run.db").unlink()


def test_nobody_plays_before_a_trainer_has_begun_and_a_server_has_its_weights(config: RunConfig) -> None:
    ledger = opened(config)
    assert ledger.take("s", 8, now=0) == []
    version = ledger.begin(0, None, None)
    assert ledger.take("s", 8, now=0) == []
    ledger.served(version)
    assert len(ledger.take("s", 8, now=0)) == 8


def test_a_silent_sampler_loses_its_attempts_and_another_plays_them(config: RunConfig) -> None:
    ledger = begun(config)
    mine = ledger.take("first", 8, now=0)
    ledger.alive("first", [slot.id for slot in mine[:4]], now=4)
    ledger.expire(now=6)
    again = ledger.take("second", 8, now=6)
    assert [(slot.group, slot.member, slot.launch) for slot in again] == [(s.group, s.member, 1) for s in mine[4:]]
    assert ledger.alive("first", [slot.id for slot in mine], now=7) == [slot.id for slot in mine[4:]]


def test_a_batch_that_is_asked_for_twice_is_the_same(config: RunConfig) -> None:
    ledger = begun(config)
    play(ledger, ledger.take("s", 8, now=0))
    first = ledger.batch(1, ledger.version, None)
    assert len(first) == 4
    assert ledger.batch(1, ledger.version, None) == first
    assert opened(config).batch(1, ledger.version, None) == first, "also after the coordinator was killed"


def test_groups_without_anything_to_learn_are_refilled_and_leave_the_store(config: RunConfig) -> None:
    ledger = begun(config)
    play(ledger, ledger.take("s", 8, now=0), reward=1.0)
    assert ledger.batch(1, ledger.version, None) == []
    assert ledger.counts["group_zero_variance"] == 4
    assert ledger.store.counts() == {"unused": 8}
    assert len(ledger.take("s", 8, now=0)) == 8


def test_an_unknown_reward_is_played_again_under_another_name(config: RunConfig) -> None:
    ledger = begun(config)
    play(ledger, ledger.take("s", 2, now=0), reward=Reward.unknown("judge"))
    ledger = opened(config)
    again = [slot for slot in ledger.take("s", 8, now=0) if slot.group == 0]
    assert len({slot.id for slot in again} & set(ledger.store.ids())) == 0


def test_weights_of_a_lost_timeline_never_share_a_version(config: RunConfig) -> None:
    ledger = begun(config)
    for step in (1, 2):
        play(ledger, ledger.take("s", 8, now=0))
        assert ledger.batch(step, ledger.version, None)
        ledger.stepped(step, step, None)
        ledger.served(step)
    assert ledger.begin(1, None, None) == 3
    assert ledger.begin(1, 9, None) == 10


def test_a_second_trainer_is_refused(config: RunConfig) -> None:
    ledger = begun(config)
    play(ledger, ledger.take("s", 8, now=0))
    ledger.batch(1, ledger.version, None)
    ledger.stepped(1, 1, None)
    with pytest.raises(OutOfStep, match="another trainer"):
        ledger.batch(1 + 2, ledger.version, None)
    with pytest.raises(OutOfStep, match="another trainer took over"):
        ledger.stepped(2, 7, None)


def test_a_run_is_finished_when_its_last_checkpoint_is_durable_and_no_sooner(config: RunConfig) -> None:
    ledger = begun(config)
    ledger.begin(29, None, None)
    ledger.served(1)
    play(ledger, ledger.take("s", 8, now=0))
    assert ledger.batch(30, ledger.version, None)
    ledger.stepped(30, 2, None)
    assert not ledger.finished, "its trainer may yet die, and need samplers"
    ledger.ack(30)
    assert ledger.finished
    assert opened(config).finished
    assert ledger.take("s", 8, now=0) == []


def test_every_group_has_one_task_and_each_round_has_all(config: RunConfig) -> None:
    ledger = begun(config)
    tasks = {slot.group: ledger.task(slot)["id"] for slot in ledger.take("s", 8, now=0)}
    again = opened(config)
    assert {slot.group: again.task(slot)["id"] for slot in again.take("s", 8, now=0)} == tasks


@pytest.mark.parametrize("seed", range(6))
def test_any_deaths_at_any_time(config: RunConfig, seed: int) -> None:
    """Trainer, sampler and coordinator die at random between any two calls; the run still gets through its steps."""
    dice, ledger, now = random.Random(seed), begun(config), 0.0
    step, version, durable = 0, 0, 0
    batch: list[str] = []
    history: dict[int, list[str]] = {}
    delivered, seen_versions, playing = set[str](), [0], []
    while step < 25:
        now += 0.3
        match dice.choices(
            ["take", "deliver", "train", "kill trainer", "kill sampler", "kill coordinator", "clock"],
            [8, 30, 12, 1, 1, 1, 4],
        )[0]:
            case "take":
                playing += ledger.take("s", dice.randint(1, 8), now=now)
            case "deliver" if playing:
                slot = playing.pop(dice.randrange(len(playing)))
                play(ledger, [slot])
                delivered.add(slot.id)
                if dice.random() < 0.1:
                    play(ledger, [slot])  # the answer was lost, and the sampler repeats itself
            case "train" if not batch:
                batch = [one.id for one in ledger.batch(step + 1, ledger.version, None)]
            case "train":
                claimed = ledger.store.batch(step + 1)
                oldest = min(one.oldest_version or 0 for one in claimed)
                assert version - oldest <= config.schedule.max_staleness
                step, version = step + 1, version + 1
                ledger.stepped(step, version, None)
                ledger.served(version)
                history[step], batch = batch, []
                seen_versions.append(version)
                if step % 3 == 0:
                    durable = step
                    ledger.ack(step)
            case "kill trainer":
                step, batch = durable, []
                history = {past: ids for past, ids in history.items() if past <= durable}
                version = ledger.begin(step, None, None)
                ledger.served(version)
                seen_versions.append(version)
            case "kill sampler":
                playing.clear()
            case "kill coordinator":
                ledger = opened(config)
            case "clock":
                ledger.alive("s", [slot.id for slot in playing], now=now)
                ledger.expire(now=now)
    trained = Counter(id_ for ids in history.values() for id_ in ids)
    assert max(trained.values()) == 1
    assert delivered <= set(ledger.store.ids())
    assert seen_versions == sorted(set(seen_versions))
    assert {past: sorted(ledger.store.used_by(past)) for past in history} == {p: sorted(i) for p, i in history.items()}
