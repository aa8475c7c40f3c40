"""Deletes a run's data in S3 when its resource is deleted and deletionPolicy is Delete."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping

import typer

from pinnace.outcome import InvalidSpec, run_stage
from pinnace.storage import Storage

log = logging.getLogger(__name__)
app = typer.Typer(help="Delete everything below the run's path in S3.")


def clean_up(storage: Storage, environ: Mapping[str, str] = os.environ) -> int:
    """Deletes all objects of the run that `PINNACE_JOB` names, of whatever kind; how many they were.

    Raises:
        InvalidSpec: there is no run path, so nothing may be deleted.
        StorageUnavailable
    """
    # Only the path is read: this must work for every kind, and for a spec that no version understands any more.
    try:
        path = str(json.loads(environ.get("PINNACE_JOB", ""))["runPath"]).strip("/")
    except (ValueError, KeyError, TypeError):
        raise InvalidSpec("PINNACE_JOB has no runPath: this command runs in a pod that the operator made") from None
    if len(path.split("/")) != 4:  # <namespace>/<kind>/<name>/<uid8>: never a folder that others share
        raise InvalidSpec(f"{path!r} is not the path of one run: nothing was deleted")
    folder = storage.settings.root / path
    found = [each.uri for each in storage.list(folder)]
    storage.store.delete(found)
    log.info("deleted %d objects below %s", len(found), folder)
    return len(found)


def _stage() -> None:
    clean_up(Storage.from_env())


@app.callback(invoke_without_command=True)
def main() -> None:
    """Delete everything below the run's path in S3."""
    logging.basicConfig(level=logging.INFO)
    raise typer.Exit(run_stage(_stage))
