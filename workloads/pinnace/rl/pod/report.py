"""Who tells the operator how a run is getting on."""

from __future__ import annotations

import os

from pinnace_operator.api.rlrun import RLRunSpec

from pinnace.job import Job
from pinnace.progress import Progress


def reporter() -> Progress | None:
    """Of the trainer's first process in a pod; None everywhere else."""
    if "PINNACE_JOB" not in os.environ or os.environ.get("RANK", "0") != "0":
        return None
    return Progress.from_env(Job[RLRunSpec].from_env().identity)
