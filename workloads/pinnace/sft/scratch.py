"""The pod's local disk: who puts what where."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Scratch:
    """Paths below `/scratch` (or `PINNACE_SCRATCH`). The supervisor fills `model`, `data`, `resume`."""

    root: Path

    @classmethod
    def from_env(cls) -> Scratch:
        return cls(Path(os.environ.get("PINNACE_SCRATCH", "/scratch")))

    @property
    def model(self) -> Path:
        """The model to start from."""
        return self.root / "model"

    @property
    def data(self) -> Path:
        """`train.arrow`, `eval.arrow` and their reports."""
        return self.root / "data"

    @property
    def resume(self) -> Path:
        """The newest checkpoint's `state`, if there is one."""
        return self.root / "resume"

    @property
    def work(self) -> Path:
        """The trainer's output folder; checkpoints stay here until they are durable."""
        return self.root / "work"

    @property
    def output(self) -> Path:
        """The finished model, published by the supervisor of node 0."""
        return self.root / "output"

    @property
    def history(self) -> Path:
        return self.root / "history"

    @property
    def stop(self) -> Path:
        """Exists once SIGTERM has come: workers checkpoint at the next step and stop."""
        return self.root / "stop"

    def outcome(self, rank: int) -> Path:
        """What ended worker `rank`, as JSON."""
        return self.root / "outcome" / f"rank-{rank:05d}.json"

    def outcomes(self) -> list[Path]:
        return sorted((self.root / "outcome").glob("rank-*.json"))
