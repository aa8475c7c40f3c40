"""Checkpoints and metrics on their way to S3, while training goes on."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from pinnace.storage import History as StoredHistory
from pinnace.storage import RunDirectory


class S3Checkpoints:
    """The trainer's `CheckpointSink`: one upload a checkpoint and node; node 0 commits when all parts are there."""

    def __init__(
        self,
        run: RunDirectory,
        *,
        node: int,
        nodes: int,
        keep_last: int,
        keep_best: int,
        parents: list[str],
        config_hash: str,
    ) -> None:
        self._run, self._node, self._nodes = run, node, nodes
        self._last, self._best = keep_last, keep_best
        self._parents, self._config_hash = parents, config_hash

    def save(self, step: int, directory: Path, eval_loss: float | None) -> None:
        upload = self._run.checkpoints.begin(step, rank=self._node, world_size=self._nodes)
        for name in ("model", "state"):
            if (directory / name).is_dir():
                upload.add(directory / name, to=name, keep_local=False)
        score = None if eval_loss is None else f"{-eval_loss:.9f}"
        upload.commit(parents=self._parents, config_hash=self._config_hash, score=score)
        if self._node == 0:
            self._run.checkpoints.retain(last=self._last, best=self._best)


class History:
    """`history/metrics-<attempt>.jsonl`: every log line.

    `earlier` are the lines up to the checkpoint that this attempt goes on from (its trainer state keeps them), so that
    the newest attempt's file always tells the whole run, whatever a killed attempt could not upload any more.
    """

    def __init__(self, run: RunDirectory, attempt: int, *, earlier: Sequence[Mapping[str, object]] = ()) -> None:
        self._lines = [json.dumps(line) for line in earlier]
        self._stored = StoredHistory(run, {f"metrics-{attempt}.jsonl": self._content})

    def add(self, step: int, metrics: dict[str, float]) -> None:
        self._lines.append(json.dumps({"step": step, "time": round(time.time(), 3), **metrics}))
        self._stored.changed()

    def close(self) -> None:
        """Uploads the rest; waits for a store that is away."""
        self._stored.close()

    def _content(self) -> bytes:
        return "".join(f"{line}\n" for line in list(self._lines)).encode()
