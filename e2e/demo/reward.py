"""What the demo's RLRun has learned: its rewards, from the metrics that it keeps in S3."""

from __future__ import annotations

import json
import statistics
from dataclasses import dataclass

from e2e.cluster import Cluster
from e2e.kube import Object

_BARS = "▁▂▃▄▅▆▇█"
_MEAN_OF = 5


@dataclass(frozen=True)
class Rewards:
    """Mean reward of each step's attempts, and where its picture is."""

    steps: tuple[float, ...]
    plot: str

    @property
    def before(self) -> float:
        return statistics.fmean(self.steps[:_MEAN_OF])

    @property
    def after(self) -> float:
        return statistics.fmean(self.steps[-_MEAN_OF:])

    def __str__(self) -> str:
        bars = "".join(_BARS[min(7, int(8 * reward))] for reward in self.steps)
        return f"{self.before:.2f} → {self.after:.2f} in {len(self.steps)} steps  {bars}"


def rewards(kube: Cluster, run: Object) -> Rewards:
    """Of a finished RLRun."""
    history = f"{run['status']['output']['uri'].rpartition('/')[0]}/history"
    with kube.s3.storage().open(f"{history}/metrics.jsonl") as stored:
        lines = [json.loads(line) for line in stored.read().splitlines()]
    return Rewards(tuple(line["reward"] for line in lines), f"{history}/reward.svg")
