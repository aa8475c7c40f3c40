"""`pinnace eval preflight|fetch|shard`: what runs in an EvalSuite's pods."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from pinnace_operator.api.conditions import Reason
from pinnace_operator.api.outcome import Outcome

from pinnace.outcome import TERMINATION_LOG, run_stage


def preflight() -> None:
    """Check everything that can be wrong, before the model is served."""

    def main() -> None:
        from .check import preflight as check
        from .options import Job

        check(Job.from_env())

    _stage(main, Reason.SHARD_FAILED)


def fetch(folder: Annotated[Path, typer.Argument(help="where the server reads the model")]) -> None:
    """Bring the model to a server's disk."""

    def main() -> None:
        from pinnace_operator.api.evalsuite import EvalSuiteSpec

        from pinnace.job import Job
        from pinnace.model import fetch_model
        from pinnace.storage import Storage

        job = Job[EvalSuiteSpec].from_env()
        assert job.spec.model is not None  # noqa: S101 - the operator makes no server without one
        folder.mkdir(parents=True, exist_ok=True)
        fetch_model(job.spec.model, job.model, Storage.from_env(), folder)

    _stage(main, Reason.ROLLOUT_FAILED)


def shard() -> None:
    """Make attempts until all have ended, then report."""

    def main() -> Outcome:
        from .options import Job
        from .shard import shard as work

        return work(Job.from_env())

    _stage(main, Reason.SHARD_FAILED)


def _stage(main: Callable[[], Outcome | None], crashed: Reason) -> None:
    import logging

    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s", stream=sys.stdout)
    logging.getLogger("httpx2").setLevel(logging.WARNING)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    where = Path(os.environ.get("PINNACE_TERMINATION_LOG", TERMINATION_LOG))
    sys.exit(run_stage(main, crashed=crashed, termination_log=where))
