"""The paths of backup mappings: `$`, `$.a.b[0]`, `$['any key']`. Pure. (A full JSONPath could return many values.)"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

from pinnace.tools.gateway.errors import MappingInvalid

_STEP = re.compile(r"\.([A-Za-z_][A-Za-z0-9_-]*)|\[(\d+)\]|\['([^']*)'\]")


@lru_cache(maxsize=4096)
def parse(path: str) -> tuple[str | int, ...]:
    """The steps of a path: keys and indices. Raises `MappingInvalid`."""
    if not path.startswith("$"):
        raise MappingInvalid(f"{path!r} is no path: it starts with $")
    steps: list[str | int] = []
    at = 1
    while at < len(path):
        found = _STEP.match(path, at)
        if not found:
            raise MappingInvalid(f"{path!r} can't be read from {path[at:]!r} on: write paths like $.a.b[0]")
        name, index, quoted = found.groups()
        steps.append(int(index) if index is not None else name if name is not None else quoted)
        at = found.end()
    return tuple(steps)


def is_path(value: Any) -> bool:
    """A string that starts with `$` is a path (`$$…` is the literal `$…`); all else is a literal."""
    return isinstance(value, str) and value.startswith("$") and not value.startswith("$$")


def check(value: Any) -> None:
    """Raises `MappingInvalid` if `value` looks like a path but is none."""
    if is_path(value):
        parse(value)


def read(value: Any, document: Any) -> Any:
    """The mapped value: of a path, what it points to in `document`; of a literal, itself. Raises `KeyError(path)`."""
    if not is_path(value):
        return value[1:] if isinstance(value, str) and value.startswith("$$") else value
    found = document
    for step in parse(value):
        if isinstance(step, int):
            if not isinstance(found, list) or step >= len(found):
                raise KeyError(value)
            found = found[step]
        else:
            if not isinstance(found, dict) or step not in found:
                raise KeyError(value)
            found = found[step]
    return found
