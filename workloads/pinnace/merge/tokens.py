"""Do two models mean the same by the same token id? And which row of one vocabulary belongs to a row of another?"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .errors import SourceUnusable
from .source import Folder

_MEANING = ("normalizer", "pre_tokenizer", "decoder")
_PLAIN_FILES = ("tokenizer.model", "vocab.json", "merges.txt")


def tokenizer_identity(folder: Folder) -> str | None:
    """A hash of what turns text into ids: vocabulary, merges, added tokens. None if the folder has no tokenizer.

    Chat templates, padding and how the file is written don't count: training tools rewrite them.
    """
    if "tokenizer.json" in folder.files:
        document = folder.json("tokenizer.json")
        model = dict(document.get("model") or {})
        # Two spellings of the same: "a b" and ["a", "b"].
        merges = [one if isinstance(one, str) else " ".join(one) for one in model.get("merges") or ()]
        meaning = {
            "type": model.get("type"),
            "vocab": model.get("vocab"),
            "merges": merges,
            "added": sorted((one["id"], one["content"]) for one in document.get("added_tokens") or ()),
            **{key: document.get(key) for key in _MEANING},
        }
        return hashlib.sha256(json.dumps(meaning, sort_keys=True).encode()).hexdigest()
    digest = hashlib.sha256()
    found = [name for name in _PLAIN_FILES if name in folder.files]
    for name in found:
        digest.update(name.encode() + b"\0" + folder.read(name))
    return digest.hexdigest() if found else None


def vocabulary(folder: Folder) -> dict[str, int]:
    """Every token and its id. Raises `SourceUnusable` without a tokenizer.json."""
    if "tokenizer.json" not in folder.files:
        raise SourceUnusable(
            f"{folder.uri} has no tokenizer.json: its rows can't be aligned; save the tokenizer as a fast one"
        )
    document = folder.json("tokenizer.json")
    vocab: Any = (document.get("model") or {}).get("vocab") or {}
    # Unigram models list (token, score); their ids are the positions.
    table = dict(vocab) if isinstance(vocab, dict) else {entry[0]: index for index, entry in enumerate(vocab)}
    return table | {one["content"]: one["id"] for one in document.get("added_tokens") or ()}


@dataclass(frozen=True)
class RowRun:
    """Rows `start` to `end` of the base are rows from `source` on in the model; None: the model has no such tokens."""

    start: int
    end: int
    source: int | None


def align(base: dict[str, int], model: dict[str, int], *, base_rows: int, model_rows: int) -> list[RowRun]:
    """How the base's rows come from the model's, as few runs as possible.

    Rows of the base that belong to no token (padding) are taken from the same place if no token of the model is there.
    """
    by_id: list[int | None] = [None] * base_rows
    named = set(base.values())
    taken = set(model.values())
    for row in range(base_rows):
        if row not in named and row not in taken and row < model_rows:
            by_id[row] = row
    for token, row in base.items():
        source = model.get(token)
        if row < base_rows and source is not None and source < model_rows:
            by_id[row] = source
    return _runs(by_id)


def _runs(rows: Sequence[int | None]) -> list[RowRun]:
    runs: list[RowRun] = []
    for row, source in enumerate(rows):
        last = runs[-1] if runs else None
        goes_on = last and (source is None if last.source is None else source == last.source + (row - last.start))
        if last and goes_on:
            runs[-1] = RowRun(last.start, row + 1, last.source)
        else:
            runs.append(RowRun(row, row + 1, source))
    return runs
