"""`pinnace sft …`: what runs in an SFTJob's pods."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

import typer

app = typer.Typer(no_args_is_help=True, help="Supervised fine-tuning: what runs in an SFTJob's pods.")


@app.callback()
def _sft() -> None:
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s", stream=sys.stdout)


@app.command()
def preflight() -> None:
    """Checks spec, storage, model and data before the trainer starts (init container)."""
    from pinnace.outcome import run_stage

    from .job import Job
    from .preflight import preflight as check

    sys.exit(run_stage(lambda: check(Job.from_env()), termination_log=_termination_log()))


@app.command()
def train() -> None:
    """Trains (container `trainer`): downloads, runs torchrun, uploads checkpoints, publishes the model."""
    from pinnace.outcome import run_stage

    from .job import Job
    from .scratch import Scratch
    from .supervisor import supervise

    sys.exit(run_stage(lambda: supervise(Job.from_env(), Scratch.from_env()), termination_log=_termination_log()))


def _termination_log() -> Path:
    return Path(os.environ.get("PINNACE_TERMINATION_LOG", "/dev/termination-log"))
