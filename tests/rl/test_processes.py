"""All processes of a run, for real, killed -9 at random points: it finishes, and every trajectory counts once."""

from __future__ import annotations

import json
import os
import random
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pinnace.tiny.model import write_tiny_model
from safetensors.torch import load_file

from .runs import document

ROOT = Path(__file__).parents[2]
KEY = "the key of this run"


class Processes:
    """The commands of a run, started one by one, as an operator would."""

    def __init__(self, folder: Path, config: dict[str, Any]) -> None:
        self.folder, self.config = folder, config
        self.path = folder / "run.json"
        self.path.write_text(json.dumps(config))
        file = str(self.path)
        self.commands = {
            "coordinator": ["coordinator", file],
            "proxy": ["proxy", file],
            "server": ["serve", config["model"], "--url", config["servers"][0]["url"]],
            "sampler": ["sample", file, "--name", "one", "--slots", "8"],
            "trainer": ["train", file],
        }
        self.running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str) -> None:
        paths = os.pathsep.join(str(ROOT / part) for part in ("", "operator", "workloads"))
        with (self.folder / f"{name}.log").open("ab") as log:
            self.running[name] = subprocess.Popen(
                [sys.executable, "-m", "pinnace", "rl", *self.commands[name]],
                env=os.environ
                | {
                    "PYTHONPATH": paths,
                    "PINNACE_RL_KEY": KEY,
                    "OMP_NUM_THREADS": "1",
                    "PINNACE_TERMINATION_LOG": str(self.folder / f"{name}.outcome"),
                },
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def kill(self, name: str) -> None:
        self.running[name].kill()
        self.running[name].wait()

    def outcome(self, name: str) -> dict[str, Any]:
        made: dict[str, Any] = json.loads((self.folder / f"{name}.outcome").read_text())
        return made

    @property
    def steps(self) -> list[dict[str, float]]:
        path = Path(self.config["folder"]) / "metrics.jsonl"
        return [json.loads(line) for line in path.read_text().split("\n")[:-1]] if path.exists() else []

    def logs(self) -> str:
        return "\n".join(f"--- {path.name}\n{path.read_text()[-2000:]}" for path in sorted(self.folder.glob("*.log")))

    def until_after(self, step: int) -> None:
        """More steps than that are made, or the trainer has ended."""
        self.until(lambda: len(self.steps) > step or self.running["trainer"].poll() is not None)

    def until(self, met: Any, *, seconds: float = 500) -> None:
        began = time.monotonic()
        while not met():
            assert time.monotonic() - began < seconds, self.logs()
            for name, process in self.running.items():
                assert process.poll() in {None, 0, -9, -15}, f"{name} ended with {process.returncode}\n{self.logs()}"
            time.sleep(0.1)


@contextmanager
def processes(folder: Path, **more: Any) -> Iterator[Processes]:
    write_tiny_model(folder / "model")
    made = Processes(folder, document(folder, folder / "model", **more))
    try:
        for name in made.commands:
            made.start(name)
        yield made
    finally:
        for process in made.running.values():
            process.kill()
            process.wait()


@pytest.mark.slow
def test_nothing_is_trained_twice_or_lost_whoever_is_killed(tmp_path: Path) -> None:
    dice = random.Random(7)
    with processes(tmp_path, steps=15, checkpointEvery=3) as run:
        delivered, seen = set[str](), 0
        for victim in ["trainer", "sampler", "coordinator", "proxy", "server", "trainer", "coordinator", "sampler"]:
            run.until_after(seen)
            time.sleep(dice.random())
            if run.running["trainer"].poll() is not None:
                break
            seen = len(run.steps)
            run.kill(victim)
            delivered |= set(_ids(run, "SELECT id FROM trajectories"))
            run.start(victim)
        run.until(lambda: run.running["trainer"].poll() is not None)
        assert run.running["trainer"].returncode == 0, run.logs()
        run.until(lambda: run.running["sampler"].poll() == 0)
    assert [line["step"] for line in run.steps] == list(range(1, 16))
    assert max(line["staleness_max"] for line in run.steps) <= 2
    # `uses` has the id as its key: one use a trajectory. Every step has its batch, and no more.
    assert _rows(run, "SELECT step, count(*) FROM uses WHERE purpose = 'train' GROUP BY step ORDER BY step") == [
        (step, 4) for step in range(1, 16)
    ]
    assert delivered <= set(_ids(run, "SELECT id FROM trajectories"))
    versions = [version for (version,) in _rows(run, "SELECT version FROM versions ORDER BY rowid")]
    assert versions == sorted(set(versions))
    assert versions[-1] > 15, "a trainer that resumed took new numbers"
    assert load_file(Path(run.config["folder"]) / "output" / "model.safetensors")


@pytest.mark.slow
def test_a_coordinator_that_loses_its_disk_costs_no_step_and_repeats_no_task(tmp_path: Path) -> None:
    with processes(tmp_path, steps=8, checkpointEvery=100) as run:
        run.until(lambda: len(run.steps) >= 3)
        run.kill("coordinator")
        trained = set(_ids(run, "SELECT id FROM uses WHERE purpose = 'train'"))
        for file in Path(run.config["folder"]).glob("trajectories.db*"):
            file.unlink()
        run.start("coordinator")
        run.until(lambda: run.running["trainer"].poll() is not None)
        assert run.running["trainer"].returncode == 0, run.logs()
    assert [line["step"] for line in run.steps] == list(range(1, 9))
    later = set(_ids(run, "SELECT id FROM uses WHERE purpose = 'train'"))
    assert later
    assert not {id_.partition("-")[0] for id_ in trained} & {id_.partition("-")[0] for id_ in later}


@pytest.mark.slow
def test_sigterm_ends_a_trainer_with_85_and_the_next_goes_on_from_there(tmp_path: Path) -> None:
    with processes(tmp_path, steps=6, checkpointEvery=100) as run:
        run.until(lambda: len(run.steps) >= 2)
        run.running["trainer"].terminate()
        assert run.running["trainer"].wait(120) == 85
        saved = run.outcome("trainer")
        assert saved["reason"] == "Checkpointed"
        run.start("trainer")
        run.until(lambda: run.running["trainer"].poll() is not None)
        assert run.running["trainer"].returncode == 0, run.logs()
    assert [line["step"] for line in run.steps] == list(range(1, 7))
    assert saved["step"] >= 2


def _rows(run: Processes, query: str) -> list[Any]:
    database = sqlite3.connect(f"file:{run.config['folder']}/trajectories.db?mode=ro", uri=True)
    try:
        return database.execute(query).fetchall()
    finally:
        database.close()


def _ids(run: Processes, query: str) -> list[str]:
    return [id_ for (id_,) in _rows(run, query)]
