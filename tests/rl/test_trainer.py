"""The loop itself, with the real engine; the batches come from a list, and what it publishes goes into one."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pinnace.outcome import Checkpointed, Diverged
from pinnace.rl.checkpoints import DiskCheckpoints
from pinnace.rl.config import RunConfig
from pinnace.rl.engine.policy import Policy
from pinnace.rl.engine.ranks import Ranks
from pinnace.rl.engine.torch_engine import TorchEngine
from pinnace.rl.report import Report
from pinnace.rl.trainer import train
from pinnace.rl.types import Trajectory
from pinnace.shutdown import Shutdown
from pinnace.storage import Published
from pinnace.tiny.model import write_tiny_model

from .conftest import trajectory
from .runs import document


class Outlet:
    """The coordinator and the proxy of a run in which nothing goes wrong."""

    def __init__(self, batches: dict[int, list[Trajectory]], on_batch: Callable[[int], None] = lambda _: None) -> None:
        self.batches, self.on_batch = batches, on_batch
        self.said: list[Any] = []
        self.version, self.quarantined, self.reward = -1, 0, 0.25

    def begin(self, step: int, newest_group: int | None) -> int:
        assert newest_group == (step or None), "batch n is of group n"
        self.version += 1
        self.said.append(("begin", step, self.version))
        return self.version

    def batch(self, step: int) -> list[Trajectory]:
        self.on_batch(step)
        return self.batches[step]

    def stepped(self, step: int, version: int, newest_group: int) -> None:
        assert newest_group == step
        self.version = version
        self.said.append(("stepped", step, version))

    def publish(self, version: int, write: Callable[[Path], None]) -> None:
        self.said.append(("published", version))

    def durable(self, step: int) -> None:
        self.said.append(("durable", step))

    def finish(self, write: Callable[[Path], None]) -> Published:
        return Published("done", "")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("trainer") / "tiny"
    write_tiny_model(made)
    return made


def batches(steps: int) -> dict[int, list[Trajectory]]:
    return {
        step: [
            trajectory(f"{step}-{member}", reward=float(member % 2), tokens=2 + step, group=str(step))
            for member in range(4)
        ]
        for step in range(1, steps + 1)
    }


class Attempt:
    """One life of a trainer."""

    def __init__(self, folder: Path, model: Path, outlet: Outlet, **more: Any) -> None:
        from transformers import AutoModelForCausalLM

        folder.mkdir(exist_ok=True)
        self.config = RunConfig.model_validate(document(folder, model, **more))
        self.outlet, self.shutdown = outlet, Shutdown()
        self.loaded = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
        self.engine = TorchEngine(Policy(self.loaded, gradient_checkpointing=False), token_budget=256)
        self.checkpoints = DiskCheckpoints(folder / "checkpoints", keep=2, durable=outlet.durable)

    def run(self) -> Published | None:
        outlet: Any = self.outlet
        report = Report(self.config.steps)
        return train(self.config, self.engine, outlet, self.checkpoints, (1, 2, 3), self.shutdown, Ranks(), report)

    @property
    def weights(self) -> dict[str, torch.Tensor]:
        return {name: value.clone() for name, value in self.loaded.state_dict().items()}

    @property
    def lines(self) -> list[dict[str, float]]:
        return [json.loads(line) for line in (self.config.folder / "metrics.jsonl").read_text().splitlines()]


def killed_at(step: int) -> Callable[[int], None]:
    def kill(asked: int) -> None:
        if asked == step:
            raise KeyboardInterrupt

    return kill


@pytest.mark.parametrize("died_at", [2, 3, 4])
def test_a_run_that_was_killed_and_resumed_ends_with_the_weights_of_one_that_was_not(
    model: Path, tmp_path: Path, died_at: int
) -> None:
    whole = Attempt(tmp_path / "whole", model, Outlet(batches(5)), steps=5)
    whole.run()
    first = Attempt(tmp_path / "broken", model, Outlet(batches(5), killed_at(died_at)), steps=5)
    with pytest.raises(KeyboardInterrupt):
        first.run()
    (first.config.folder / "metrics.jsonl").unlink()  # on another disk there are the checkpoints only
    second = Attempt(tmp_path / "broken", model, Outlet(batches(5)), steps=5)
    second.run()
    assert second.outlet.said[0][1] == {2: 0, 3: 2, 4: 2}[died_at]
    for name, value in whole.weights.items():
        assert torch.equal(value, second.weights[name]), name
    assert [line["step"] for line in second.lines] == [1, 2, 3, 4, 5]
    assert [line["loss"] for line in second.lines] == [line["loss"] for line in whole.lines]


def test_weights_have_their_number_before_anybody_sees_them(model: Path, tmp_path: Path) -> None:
    attempt = Attempt(tmp_path / "run", model, Outlet(batches(2)), steps=2)
    attempt.run()
    assert attempt.outlet.said == [
        ("begin", 0, 0), ("published", 0), ("stepped", 1, 1), ("published", 1), ("stepped", 2, 2), ("published", 2),
        ("durable", 2), ("durable", 2),
    ]  # fmt: skip


def test_sigterm_saves_a_checkpoint_and_ends_with_85(model: Path, tmp_path: Path) -> None:
    attempt = Attempt(tmp_path / "run", model, Outlet(batches(9)), steps=9, checkpointEvery=5)
    attempt.outlet.on_batch = lambda step: attempt.shutdown.request() if step == 3 else None
    with pytest.raises(Checkpointed, match="step 3 is saved") as ended:
        attempt.run()
    assert (ended.value.exit_code, ended.value.step) == (85, 3)
    assert attempt.outlet.said[-1] == ("durable", 3)
    saved = attempt.checkpoints.newest()
    assert saved is not None
    assert saved.step == 3


def test_a_gradient_that_is_not_finite_stops_the_run_and_names_the_last_good_checkpoint(
    model: Path, tmp_path: Path
) -> None:
    attempt = Attempt(tmp_path / "run", model, Outlet(batches(4)), steps=4)

    def poison(step: int) -> None:
        if step == 4:
            with torch.no_grad():
                attempt.loaded.lm_head.weight[0, 0] = math.nan

    attempt.outlet.on_batch = poison
    with pytest.raises(Diverged, match=r"step 4: .*the last good checkpoint is that of step 2") as ended:
        attempt.run()
    assert ended.value.exit_code == 70
    assert ("durable", 4) not in attempt.outlet.said


def test_a_step_is_told_in_numbers(model: Path, tmp_path: Path) -> None:
    attempt = Attempt(tmp_path / "run", model, Outlet(batches(1)), steps=1)
    attempt.run()
    (line,) = attempt.lines
    assert (line["reward"], line["reward_trained"]) == (0.25, 0.5)
    assert line["tokens_trained"] == 4 * 2 * 3
    assert line["staleness_max"] == 0
    assert line["mismatch_kl"] > 0
    assert line["entropy"] > 1
    assert sum(value for name, value in line.items() if name.startswith("share_")) == pytest.approx(1)
