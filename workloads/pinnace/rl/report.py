"""What a run tells while it goes on: the operator, and files in S3. Lossy, and never in training's way."""

from __future__ import annotations

import time
from collections.abc import Mapping

from pinnace_operator.api.status import CheckpointRef

from pinnace.progress import Progress
from pinnace.storage import History


class Report:
    """Of one trainer; `close` it. Without a `progress` the operator is told nothing, without a `history` S3."""

    def __init__(self, steps: int, *, progress: Progress | None = None, history: History | None = None) -> None:
        self._steps, self._progress, self._history = steps, progress, history
        self._step, self._told = 0, None if progress is None else time.monotonic()

    def tell(self, step: int, values: Mapping[str, float]) -> None:
        """Of the step that was made last."""
        if self._history is not None:
            self._history.changed()
        if self._progress is not None:
            now = time.monotonic()
            seconds, self._told, self._step = now - (self._told or now), now, step
            self._progress.report(
                step=step,
                total_steps=self._steps,
                eta_seconds=round(seconds * (self._steps - step)),
                throughput=f"{values['tokens_trained'] / max(seconds, 1e-9):.0f} tokens/s",
                metrics={name: f"{value:.6g}" for name, value in values.items()},
            )

    def durable(self, checkpoint: CheckpointRef) -> None:
        if self._progress is not None:
            self._progress.report(step=self._step, checkpoint=checkpoint)

    def close(self) -> None:
        """Waits for a store that is away."""
        if self._history is not None:
            self._history.close()
        if self._progress is not None:
            self._progress.close()
