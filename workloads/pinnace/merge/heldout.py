"""The held-out conversations of a sweep as token ids, read and checked before anything is merged."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from pinnace_operator.api.mergesweep import HeldOutLoss
from pinnace_operator.api.shared import DataSource

from pinnace.chat import (
    IGNORED,
    TOKENIZER_FILES,
    ChatTokenizer,
    MessageError,
    Renderer,
    RenderError,
    Sample,
    TemplateError,
    TokenizerError,
    parse_conversation,
)
from pinnace.outcome import InvalidData, ModelUnusable
from pinnace.records import DataSourceError, read_records
from pinnace.storage import NotFound, Storage

from .source import Folder


@dataclass(frozen=True)
class HeldOut:
    """A file with all samples, and the digest of what is in it."""

    path: Path
    digest: str


def prepare(metric: HeldOutLoss, layout: Folder, storage: Storage, directory: Path) -> HeldOut:
    """Renders both data sets with the tokenizer that every candidate will have.

    The file holds `{"special": [[input_ids, labels], …], "general": […]}`.

    Raises:
        ModelUnusable: no tokenizer or chat template.
        InvalidData: a record that can't be read or rendered, or nothing to score.
    """
    renderer = _renderer(layout, directory / "tokenizer")
    sets = {"special": metric.special, "general": metric.general}
    content = {name: _samples(name, source, metric, renderer, storage) for name, source in sets.items()}
    body = json.dumps(content, separators=(",", ":")).encode()
    path = directory / "held-out.json"
    path.write_bytes(body)
    return HeldOut(path, hashlib.sha256(body).hexdigest())


def _renderer(layout: Folder, directory: Path) -> Renderer:
    directory.mkdir(parents=True)
    for name in TOKENIZER_FILES:
        if name in layout.files:
            (directory / name).write_bytes(layout.read(name))
    try:
        return Renderer(ChatTokenizer.from_directory(directory))
    except (TokenizerError, TemplateError) as error:
        raise ModelUnusable(f"{layout.uri}, whose tokenizer the output has: {error}") from None


def _samples(
    name: str, source: DataSource, metric: HeldOutLoss, renderer: Renderer, storage: Storage
) -> list[tuple[list[int], list[int]]]:
    try:
        found = list(_rendered(source, metric.samples, renderer, storage))
    except (DataSourceError, NotFound, MessageError, RenderError, TemplateError) as error:
        raise InvalidData(f"sweep.metric.{name}: {error}") from None
    cut = [(sample.input_ids[: metric.max_length], sample.labels[: metric.max_length]) for sample in found]
    # The first token is predicted from nothing.
    kept = [(ids, labels) for ids, labels in cut if any(label != IGNORED for label in labels[1:])]
    if not kept:
        raise InvalidData(
            f"sweep.metric.{name}: there is no turn of the assistant within {metric.max_length} tokens to score: give "
            "other data, or raise maxLength"
        )
    return kept


def _rendered(source: DataSource, most: int, renderer: Renderer, storage: Storage) -> Iterator[Sample]:
    for record in islice(read_records(source, storage), most):
        if record.problem is not None:
            raise DataSourceError(f"{record.where}: {record.problem}")
        try:
            yield from renderer.samples(parse_conversation(record.value))
        except (MessageError, RenderError) as error:
            raise DataSourceError(f"{record.where}: {error}") from None
