"""Shards of a suite as processes before a real S3, killed as they go. The other faults, and all of them at full length,
are in e2e/faults/evals.py; test_runs_survive_what_is_around_them.py has them inside one process.
"""

from __future__ import annotations

from pathlib import Path

from e2e.faults.evals import Stage, shards_killed
from e2e.s3 import S3Server


def test_killed_shards_lose_and_repeat_nothing_and_come_to_the_same_table(s3: S3Server, tmp_path: Path) -> None:
    shards_killed(Stage(s3, tmp_path), items=20, attempts=4, kills=3)
