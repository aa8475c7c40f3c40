"""Reads the entries."""

from __future__ import annotations

import difflib
from functools import cache
from pathlib import Path

import yaml
from pydantic import ValidationError

from pinnace.tools.catalogue.entry import Entry
from pinnace.tools.catalogue.errors import InvalidEntry, UnknownServer

ENTRIES = Path(__file__).parent / "entries"


@cache
def entries() -> dict[str, Entry]:
    """All entries by name, in order of their names.

    Raises:
        InvalidEntry: A file is no valid entry, or is not named after it.
    """
    found = (_read(path) for path in sorted(ENTRIES.glob("*.yaml")))
    return {each.name: each for each in found}


def entry(name: str) -> Entry:
    """The entry of this name.

    Raises:
        UnknownServer: There is none; the nearest names are offered.
    """
    known = entries()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else f"known are {', '.join(known)}"
        raise UnknownServer(f"the catalogue has no server {name!r}: {hint}")
    return known[name]


def _read(path: Path) -> Entry:
    try:
        read = Entry.model_validate(yaml.safe_load(path.read_text()))
    except (ValidationError, yaml.YAMLError) as error:
        raise InvalidEntry(f"{path.name}: {error}") from error
    if read.name != path.stem:
        raise InvalidEntry(f"{path.name}: the entry is called {read.name!r}; the file must be called after it")
    return read
