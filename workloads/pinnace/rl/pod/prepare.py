"""`pinnace rl prepare`: the first container of every pod of an RLRun. What can be wrong is found here."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from pinnace_operator.api.rlagent import TaskSource
from pinnace_operator.api.rlrun import RLRunSpec

from pinnace.job import Job
from pinnace.model import fetch_model, fetch_tokenizer
from pinnace.outcome import InvalidData, InvalidSpec
from pinnace.rl.config import RunConfig
from pinnace.storage import NotFound, S3Uri, Storage
from pinnace.tiny.task import BUILTIN

from . import arithmetic, gateway
from .settings import Place, run_config

CONFIG_MAPS = Path("/etc/pinnace")


def prepare(role: str) -> None:
    """Model, tasks and configuration on the pod's disk.

    Raises:
        InvalidSpec, InvalidData, ModelUnusable: another attempt would end the same way.
        StorageError: S3 can't be used.
    """
    job, storage = Job[RLRunSpec].from_env(), Storage.from_env()
    place = Place.from_env(str(storage.settings.root / job.run_path))
    config = run_config(job.spec, place)
    whole = role == "trainer" or (role == "rollout" and job.spec.rollout.reference is None)
    place.model.mkdir(parents=True, exist_ok=True)
    (fetch_model if whole else fetch_tokenizer)(job.spec.model, job.model, storage, place.model)
    with place.tasks.open("wb") as file:
        file.writelines(_tasks(job.spec.tasks, storage))
    config.folder.mkdir(parents=True, exist_ok=True)
    config.check()
    _check(role, config, sandbox=job.spec.tool_sandbox is not None)
    place.config.write_text(config.model_dump_json(by_alias=True))


def _check(role: str, config: RunConfig, *, sandbox: bool) -> None:
    if role == "sampler":
        from pinnace.rl.processes import check

        check(config)
        if sandbox:
            asyncio.run(gateway.check())
    elif role == "trainer":
        from pinnace.rl.trainer_process import check as check_trainer

        check_trainer(config)


def _tasks(source: TaskSource, storage: Storage) -> Iterator[bytes]:
    """JSON lines."""
    if source.builtin:
        given = source.builtin
        if given.name not in BUILTIN:
            raise InvalidSpec(f"tasks.builtin.name: {given.name!r} is not known: use {', '.join(BUILTIN)}")
        made = arithmetic.tasks(given.name, given.samples, given.seed)
        yield from (json.dumps(task).encode() + b"\n" for task in made)
    elif source.config_map:
        path = CONFIG_MAPS / source.config_map.name / source.config_map.key
        if not path.is_file():
            raise InvalidSpec(f"tasks.configMap: {source.config_map.name!r} has no key {source.config_map.key!r}")
        yield from _lines(path.read_bytes().splitlines())
    elif source.uri:
        try:
            for uri in _files(source.uri, storage):
                with storage.open(uri) as stream:
                    yield from _lines(stream.read().splitlines())
        except NotFound as error:
            raise InvalidData(f"tasks.uri: {error}") from error


def _files(uri: str, storage: Storage) -> list[str]:
    if uri.endswith(".jsonl"):
        return [uri]
    found = sorted(str(each.uri) for each in storage.list(S3Uri.parse(uri)) if str(each.uri).endswith(".jsonl"))
    if not found:
        raise InvalidData(f"tasks.uri: there is no .jsonl file in {uri}: upload one, one task a line")
    return found


def _lines(lines: Iterable[bytes]) -> Iterator[bytes]:
    return (line + b"\n" for line in lines if line.strip())
