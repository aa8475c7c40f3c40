"""`pinnace sft preflight`: finds in seconds, without torch, what would stop the job after minutes."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path

from pinnace.model import fetch_tokenizer
from pinnace.storage import Storage

from . import inputs
from .job import Job
from .launch import Node

log = logging.getLogger(__name__)


def preflight(job: Job) -> None:
    """Spec, storage, model files and (on node 0) all data; raises the typed failure of the first that is wrong."""
    template = inputs.chat_template(job.spec)
    storage = Storage.from_env()
    storage.check()
    run = storage.run(job.run_path)
    if run.published() is not None:
        return
    with tempfile.TemporaryDirectory() as folder:
        fetch_tokenizer(job.spec.model, job.model, storage, Path(folder))
        rendering = inputs.renderer(Path(folder), template)
        if Node.from_env(job).rank == 0:
            reports = inputs.check_data(job.spec, storage, rendering)
            inputs.publish_reports(run, reports)
            for name, report in reports.items():
                log.info("data.%s: %d records, %d assistant turns", name, report.records, report.turns)
