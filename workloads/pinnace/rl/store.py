"""The trajectories of a run on disk: appended once, used once, whatever is killed (docs/decisions/0006).

`append` returns when the trajectory is on disk. `claim` gives trajectories to one optimizer step, `ack` says that the
step's checkpoint is durable. After a crash `rewind` to the checkpoint that training resumes from: what later steps had
claimed waits again, because the weights that learned from it are gone. So in the history of the surviving weights every
trajectory was trained at most once, and an acknowledged one is never lost.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from .types import Trajectory, dump_trajectory, load_trajectory

TRAIN = "train"
_SCHEMA = """
CREATE TABLE IF NOT EXISTS trajectories (seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, body BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS uses (
    id TEXT PRIMARY KEY REFERENCES trajectories (id), step INTEGER NOT NULL, purpose TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS acknowledged (step INTEGER PRIMARY KEY);
CREATE TABLE IF NOT EXISTS versions (version INTEGER PRIMARY KEY, step INTEGER NOT NULL);
"""


class NotWaiting(ValueError):
    """A trajectory that is not there or is used already was claimed: whoever asks has an old view of the store."""


class TrajectoryStore:
    """One file with one writer: the coordinator's. Use it from one thread."""

    def __init__(self, path: Path) -> None:
        """Opens or creates the file; an unfinished transaction of a killed writer is undone."""
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")  # WAL's default syncs at checkpoints only
        self._db.execute("PRAGMA foreign_keys = ON")
        self._db.executescript(_SCHEMA)

    def close(self) -> None:
        self._db.close()

    def append(self, trajectory: Trajectory) -> bool:
        """Durable on return. False when a trajectory of this id is there already: senders may repeat themselves."""
        with self._transaction():
            done = self._db.execute(
                "INSERT OR IGNORE INTO trajectories (id, body) VALUES (?, ?)",
                (trajectory.id, dump_trajectory(trajectory)),
            )
            return done.rowcount == 1

    def claim(self, ids: Iterable[str], *, step: int) -> list[Trajectory]:
        """Gives trajectories to a step, all or none, in the order of `ids`. Raises `NotWaiting`."""
        return self._use(ids, step, TRAIN)

    def drop(self, ids: Iterable[str], *, step: int, reason: str) -> None:
        """Takes trajectories out unused, on the way to `step`; `rewind` to before it brings them back."""
        self._use(ids, step, reason)

    def ack(self, step: int) -> None:
        """The checkpoint of `step` is durable: it and the steps before it are consumed."""
        with self._transaction():
            self._db.execute("INSERT OR IGNORE INTO acknowledged VALUES (?)", (step,))

    @property
    def acknowledged(self) -> int:
        """The newest acknowledged step; 0 when there is none."""
        return int(self._db.execute("SELECT coalesce(max(step), 0) FROM acknowledged").fetchone()[0])

    def reserve(self, version: int, *, step: int) -> None:
        """The weights after `step` are to be known as `version`: no other weights ever will, also after a rewind."""
        with self._transaction():
            self._db.execute("INSERT OR IGNORE INTO versions VALUES (?, ?)", (version, step))

    @property
    def version(self) -> int | None:
        """The newest policy version that was ever reserved."""
        newest: int | None = self._db.execute("SELECT max(version) FROM versions").fetchone()[0]
        return newest

    @property
    def step(self) -> int:
        """The step whose weights the newest version is."""
        row = self._db.execute("SELECT step FROM versions ORDER BY version DESC LIMIT 1").fetchone()
        return int(row[0]) if row else 0

    def rewind(self, step: int) -> int:
        """Forgets all uses by later steps; returns how many trajectories wait again. Call it when training resumes."""
        with self._transaction():
            self._db.execute("DELETE FROM acknowledged WHERE step > ?", (step,))
            return self._db.execute("DELETE FROM uses WHERE step > ?", (step,)).rowcount

    def waiting(self) -> Iterator[Trajectory]:
        """What no step has used, in the order of arrival."""
        rows = self._db.execute(
            "SELECT body FROM trajectories LEFT JOIN uses USING (id) WHERE uses.id IS NULL ORDER BY seq"
        )
        return (load_trajectory(body) for (body,) in rows)

    def ids(self) -> list[str]:
        """Of everything that was ever appended."""
        return [id_ for (id_,) in self._db.execute("SELECT id FROM trajectories ORDER BY seq")]

    def used_by(self, step: int) -> list[str]:
        """Ids that the step trained on, in the order of arrival."""
        rows = self._db.execute(
            "SELECT id FROM uses JOIN trajectories USING (id) WHERE step = ? AND purpose = ? ORDER BY seq",
            (step, TRAIN),
        )
        return [id_ for (id_,) in rows]

    def batch(self, step: int) -> list[Trajectory]:
        """What the step trained or is to train on, in the order of arrival; empty before its claim."""
        rows = self._db.execute(
            "SELECT body FROM uses JOIN trajectories USING (id) WHERE step = ? AND purpose = ? ORDER BY seq",
            (step, TRAIN),
        )
        return [load_trajectory(body) for (body,) in rows]

    def counts(self) -> dict[str, int]:
        """Trajectories by what became of them: `waiting`, `train`, and the reasons for which others were dropped."""
        rows = self._db.execute(
            "SELECT coalesce(purpose, 'waiting'), count(*) FROM trajectories LEFT JOIN uses USING (id) GROUP BY 1"
        )
        return {str(purpose): int(count) for purpose, count in rows}

    def _use(self, ids: Iterable[str], step: int, purpose: str) -> list[Trajectory]:
        with self._transaction():
            used = []
            for id_ in ids:
                row = self._db.execute("SELECT body FROM trajectories WHERE id = ?", (id_,)).fetchone()
                if row is None:
                    raise NotWaiting(f"trajectory {id_!r} is not in the store")
                try:
                    self._db.execute("INSERT INTO uses VALUES (?, ?, ?)", (id_, step, purpose))
                except sqlite3.IntegrityError:
                    was = self._db.execute("SELECT step, purpose FROM uses WHERE id = ?", (id_,)).fetchone()
                    raise NotWaiting(
                        f"trajectory {id_!r} was used by step {was[0]} ({was[1]}): rewind to an earlier step first"
                    ) from None
                used.append(load_trajectory(row[0]))
            return used

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")
