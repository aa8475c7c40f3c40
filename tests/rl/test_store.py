"""Used once, never lost: also when the writer is killed at any point."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from pinnace.rl.store import NotWaiting, TrajectoryStore

from .conftest import trajectory


@pytest.fixture
def store(tmp_path: Path) -> Iterator[TrajectoryStore]:
    made = TrajectoryStore(tmp_path / "run.db")
    yield made
    made.close()


def test_what_was_appended_is_claimed_as_it_was(store: TrajectoryStore) -> None:
    first, second = trajectory("a", reward=1.0), trajectory("b", turns=3)
    assert store.append(first)
    assert store.append(second)
    assert store.claim(["b", "a"], step=1) == [second, first]
    assert store.used_by(1) == ["a", "b"]


def test_a_sender_may_repeat_itself(store: TrajectoryStore) -> None:
    assert store.append(trajectory("a", reward=1.0))
    assert not store.append(trajectory("a", reward=0.0))
    assert [one.reward.value for one in store.waiting()] == [1.0]


def test_a_claim_is_all_or_nothing(store: TrajectoryStore) -> None:
    for name in "abc":
        store.append(trajectory(name))
    store.claim(["a"], step=1)
    with pytest.raises(NotWaiting, match=r"'a' was used by step 1 \(train\)"):
        store.claim(["b", "a"], step=2)
    with pytest.raises(NotWaiting, match="'x' is not in the store"):
        store.drop(["c", "x"], step=2, reason="stale")
    assert [one.id for one in store.waiting()] == ["b", "c"]


def test_resuming_from_a_checkpoint_frees_what_later_steps_had_taken(store: TrajectoryStore) -> None:
    for name in "abcd":
        store.append(trajectory(name))
    store.claim(["a"], step=1)
    store.ack(1)
    store.claim(["b"], step=2)
    store.drop(["c"], step=2, reason="stale")
    assert store.counts() == {"train": 2, "stale": 1, "waiting": 1}
    assert store.rewind(store.acknowledged) == 2
    assert [one.id for one in store.waiting()] == ["b", "c", "d"]
    assert store.used_by(1) == ["a"]


def test_an_older_checkpoint_may_be_resumed_from_when_the_newest_is_damaged(store: TrajectoryStore) -> None:
    store.append(trajectory("a"))
    store.claim(["a"], step=1)
    store.ack(1)
    assert store.rewind(0) == 1
    assert store.acknowledged == 0
    store.claim(["a"], step=1)


class Model(RuleBasedStateMachine):
    """Against a model in plain Python: any sequence of calls, with the file closed and opened in between."""

    @initialize()
    def open(self) -> None:
        import tempfile

        self.folder = tempfile.TemporaryDirectory()
        self.store = TrajectoryStore(Path(self.folder.name) / "run.db")
        self.known: list[str] = []
        self.uses: dict[str, int] = {}
        self.acked = 0
        self.step = 1

    @rule(name=st.integers(0, 12))
    def append(self, name: int) -> None:
        assert self.store.append(trajectory(str(name))) == (str(name) not in self.known)
        if str(name) not in self.known:
            self.known.append(str(name))

    @rule(names=st.lists(st.integers(0, 12), unique=True, max_size=4))
    def claim(self, names: list[int]) -> None:
        ids = [str(name) for name in names]
        if all(id_ in self.known and id_ not in self.uses for id_ in ids):
            assert [one.id for one in self.store.claim(ids, step=self.step)] == ids
            self.uses |= dict.fromkeys(ids, self.step)
            self.step += 1
        else:
            with pytest.raises(NotWaiting):
                self.store.claim(ids, step=self.step)

    @rule()
    def ack(self) -> None:
        self.store.ack(self.step - 1)
        self.acked = self.step - 1

    @rule(back=st.integers(0, 2))
    def crash(self, back: int) -> None:
        self.store.close()
        self.store = TrajectoryStore(Path(self.folder.name) / "run.db")
        self.acked = max(0, self.acked - back)
        freed = {id_ for id_, step in self.uses.items() if step > self.acked}
        assert self.store.rewind(self.acked) == len(freed)
        self.uses = {id_: step for id_, step in self.uses.items() if id_ not in freed}
        self.step = self.acked + 1

    @invariant()
    def agrees(self) -> None:
        assert [one.id for one in self.store.waiting()] == [id_ for id_ in self.known if id_ not in self.uses]
        assert self.store.acknowledged == self.acked

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.store.close()
            self.folder.cleanup()


Model.TestCase.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)
TestModel = Model.TestCase


def test_killed_at_any_point_nothing_is_lost_or_used_twice(tmp_path: Path) -> None:
    """A writer is killed with SIGKILL again and again; what it had said was done is done, and it goes on from there."""
    path, dice = tmp_path / "run.db", random.Random(0)
    appended: set[str] = set()
    claimed: dict[str, int] = {}
    acked = 0
    for _ in range(7):
        writer = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("store_writer.py")), str(path)],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert writer.stdout is not None
        for _ in range(dice.randrange(1, 120)):
            said = writer.stdout.readline().split()
            if said[0] == "rewound":
                claimed = {id_: step for id_, step in claimed.items() if step <= int(said[1])}
            elif said[0] == "appended":
                appended.add(said[1])
            elif said[0] == "claimed":
                assert not set(said[2:]) & set(claimed)
                claimed |= dict.fromkeys(said[2:], int(said[1]))
            else:
                acked = int(said[1])
        writer.kill()
        writer.wait()
        writer.stdout.close()
        store = TrajectoryStore(path)
        counts = store.counts()
        assert counts.get("waiting", 0) + counts.get("train", 0) >= len(appended)
        for id_, step in claimed.items():
            assert id_ in store.used_by(step)
        assert store.acknowledged >= acked
        store.close()
    assert acked > 5
    assert len(appended) > 30
