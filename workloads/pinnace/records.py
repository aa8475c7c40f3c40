"""Training records from S3, a ConfigMap, a dataset hub or the built-in tasks, each with its file and line."""

from __future__ import annotations

import gzip
import json
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol, cast

from pinnace_operator.api.shared import DataSource

from pinnace.tiny.task import BUILTIN

# Where the operator mounts ConfigMaps; the key is the file's name.
CONFIG_MAPS = Path("/etc/pinnace")
_SUFFIXES = (".jsonl", ".jsonl.gz", ".json", ".parquet")


class DataSourceError(ValueError):
    """The source as a whole cannot be read (no files, unknown format); the message names the remedy."""


@dataclass(frozen=True)
class Record:
    """One line. `problem` is set, and `value` None, where the line itself cannot be decoded."""

    where: str
    value: object = None
    problem: str | None = None


class ObjectStore(Protocol):
    """The part of `pinnace.storage.Storage` that reading needs."""

    def open(self, uri: str) -> Any: ...

    def list(self, uri: str) -> Iterable[Any]: ...


def read_records(source: DataSource, storage: ObjectStore, *, config_maps: Path = CONFIG_MAPS) -> Iterator[Record]:
    """Every record in a fixed order (files by name, lines in order); raises `DataSourceError`."""
    if source.builtin is not None:
        make = BUILTIN.get(source.builtin.name)
        if make is None:
            raise DataSourceError(f"no built-in task {source.builtin.name!r}; there are {', '.join(sorted(BUILTIN))}")
        for number, value in enumerate(make(source.builtin.samples, source.builtin.seed), 1):
            yield Record(f"builtin:{source.builtin.name}:{number}", value)
    elif source.config_map is not None:
        path = config_maps / source.config_map.name / source.config_map.key
        if not path.is_file():
            raise DataSourceError(f"ConfigMap {source.config_map.name!r} has no key {source.config_map.key!r}")
        with path.open("rb") as stream:
            yield from _read_file(f"configmap/{source.config_map.name}/{source.config_map.key}", stream)
    elif source.hub is not None:
        yield from _read_hub(source.hub)
    else:
        yield from _read_objects(cast("str", source.uri), storage)


def _read_objects(uri: str, storage: ObjectStore) -> Iterator[Record]:
    if uri.endswith(_SUFFIXES):
        files = [uri]
    else:
        prefix = uri if uri.endswith("/") else uri + "/"
        files = sorted(name for name in map(_address, storage.list(prefix)) if name.endswith(_SUFFIXES))
    if not files:
        raise DataSourceError(f"{uri} has no training files: expected {', '.join(_SUFFIXES)} (or the URI of one file)")
    for file in files:
        with storage.open(file) as stream:
            yield from _read_file(file, stream)


def _address(entry: object) -> str:
    return entry if isinstance(entry, str) else str(getattr(entry, "uri"))  # noqa: B009 - strings and listed objects alike


def _read_file(name: str, stream: IO[bytes]) -> Iterator[Record]:
    if name.endswith(".parquet"):
        yield from _read_parquet(name, stream)
    elif name.endswith(".gz"):
        with gzip.open(stream) as unpacked:
            yield from _read_lines(name, unpacked)
    else:
        yield from _read_lines(name, stream)


def _read_lines(name: str, stream: Iterable[bytes]) -> Iterator[Record]:
    for number, line in enumerate(stream, 1):
        if not line.strip():
            continue
        try:
            yield Record(f"{name}:{number}", json.loads(line))
        except (ValueError, UnicodeDecodeError) as error:
            yield Record(f"{name}:{number}", problem=f"not valid JSON: {error}")


def _read_parquet(name: str, stream: IO[bytes]) -> Iterator[Record]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    # The table of contents is at the end of the file, so the shard is spooled to disk, then read by row groups.
    with tempfile.TemporaryFile() as spool:
        shutil.copyfileobj(stream, spool, 8 << 20)
        try:
            file = pq.ParquetFile(spool)
        except pa.ArrowInvalid as error:
            yield Record(name, problem=f"not a Parquet file: {error}")
            return
        if "messages" not in file.schema_arrow.names:
            yield Record(name, problem=f"no column `messages` (it has {', '.join(file.schema_arrow.names)})")
            return
        columns = [column for column in ("messages", "tools") if column in file.schema_arrow.names]
        number = 0
        for batch in file.iter_batches(batch_size=256, columns=columns):
            for value in batch.to_pylist():
                number += 1
                yield Record(f"{name}:{number}", _without_nulls(value))


def _without_nulls(value: object) -> object:
    """Parquet gives every struct every field; fields that are null were not in the record."""
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_nulls(item) for item in value]
    return value


def _read_hub(hub: Any) -> Iterator[Record]:
    from datasets import load_dataset

    rows = load_dataset(hub.repo, hub.config, split=hub.split, revision=hub.revision, streaming=True)
    for number, value in enumerate(rows, 1):
        yield Record(f"hub:{hub.repo}:{hub.split}:{number}", _without_nulls(value))
