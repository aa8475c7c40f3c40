"""Rows of the file formats that benchmarks come in."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from .errors import DataInvalid, DataMissing

Row = Mapping[str, Any]
_CSV_FIELD = 16 << 20


def read_rows(path: Path) -> Iterator[Row]:
    """Rows of a .jsonl (also .gz), .json, .csv, .tsv, .parquet or .xlsx file. Raises `DataInvalid`, `DataMissing`."""
    if not path.is_file():
        raise DataMissing(f"{path} is not there")
    readers = {
        ".jsonl": _jsonl,
        ".gz": _jsonl,
        ".json": _json,
        ".csv": _csv,
        ".tsv": _tsv,
        ".parquet": _parquet,
        ".xlsx": _xlsx,
    }
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise DataInvalid(f"{path.name}: unknown format; use {', '.join(readers)}")
    try:
        yield from reader(path)
    except (UnicodeDecodeError, ValueError, csv.Error, gzip.BadGzipFile, EOFError) as error:
        raise DataInvalid(f"{path.name}: {error}") from None


def text_of(row: Row, field: str, where: str) -> str:
    """A field that must be there, as text. Raises `DataInvalid` naming the place."""
    value = row.get(field)
    if value is None or (isinstance(value, str) and not value.strip()):
        there = ", ".join(str(name) for name in row)
        raise DataInvalid(f"{where}: no field {field!r} (there are: {there}); is this the right file and revision?")
    return value if isinstance(value, str) else str(value)


def _jsonl(path: Path) -> Iterator[Row]:
    packed = path.suffix == ".gz"
    with gzip.open(path, "rt", encoding="utf-8-sig") if packed else path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                try:
                    row = json.loads(line)
                except ValueError as error:
                    raise DataInvalid(f"{path.name}, line {number}: not JSON: {error}") from None
                yield _object(row, f"{path.name}, line {number}")


def _json(path: Path) -> Iterator[Row]:
    rows = json.loads(path.read_text(encoding="utf-8-sig"))
    if not isinstance(rows, list):
        raise DataInvalid(f"{path.name}: expected a list of objects")
    for number, row in enumerate(rows, 1):
        yield _object(row, f"{path.name}, entry {number}")


def _csv(path: Path) -> Iterator[Row]:
    csv.field_size_limit(_CSV_FIELD)
    with path.open(encoding="utf-8-sig", newline="") as file:
        yield from csv.DictReader(file)


def _tsv(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        yield from csv.DictReader(file, delimiter="\t")


def _parquet(path: Path) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        for batch in pq.ParquetFile(path).iter_batches(batch_size=256):
            yield from batch.to_pylist()
    except pa.ArrowException as error:
        raise DataInvalid(f"{path.name}: {error}") from None


def _xlsx(path: Path) -> Iterator[Row]:
    from openpyxl import load_workbook

    sheet = load_workbook(path, read_only=True, data_only=True).worksheets[0]
    rows = sheet.iter_rows(values_only=True)
    names = [str(name) for name in next(rows, ()) if name is not None]
    for values in rows:
        if any(value is not None for value in values):
            yield dict(zip(names, values, strict=False))


def _object(row: object, where: str) -> Row:
    if not isinstance(row, Mapping):
        raise DataInvalid(f"{where}: expected an object")
    return row
