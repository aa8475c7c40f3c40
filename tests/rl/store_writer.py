"""Writes to a store until it is killed, and says each thing once it is done. Run by test_store.py."""

from __future__ import annotations

import sys
from pathlib import Path

from pinnace.rl.store import TrajectoryStore
from pinnace.rl.types import Reward, Segment, Termination, Trajectory


def main(path: Path) -> None:
    def say(*words: object) -> None:
        print(*words, flush=True)

    store = TrajectoryStore(path)
    store.rewind(store.acknowledged)
    say("rewound", store.acknowledged)
    step = store.acknowledged
    number = sum(store.counts().values())
    while True:
        for _ in range(3):
            made = Trajectory(
                id=str(number), task_id="t", group_id="g", segments=(Segment(ids=tuple(range(200))),),
                reward=Reward.right(), termination=Termination.ANSWERED,
            )  # fmt: skip
            store.append(made)
            say("appended", number)
            number += 1
        step += 1
        ids = [waiting.id for waiting in store.waiting()]
        store.claim(ids, step=step)
        say("claimed", step, *ids)
        if step % 2:
            store.ack(step)
            say("acknowledged", step)


main(Path(sys.argv[1]))
