"""Backup tools: how one tool's call becomes another's, and its result the first one's. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pinnace.tools.gateway import jsonpath
from pinnace.tools.gateway.errors import MappingInvalid
from pinnace.tools.outcome import ToolResult


def cycle(edges: Mapping[str, Sequence[str]]) -> list[str]:
    """A ring of backups, first name repeated at the end; empty when there is none."""
    done: set[str] = set()

    def visit(name: str, trail: list[str]) -> list[str]:
        if name in trail:
            return [*trail[trail.index(name) :], name]
        if name in done:
            return []
        for following in edges.get(name, ()):
            if ring := visit(following, [*trail, name]):
                return ring
        done.add(name)
        return []

    for start in edges:
        if ring := visit(start, []):
            return ring
    return []


def check(mapping: Mapping[str, Any], *, source: Mapping[str, Any], target: Mapping[str, Any]) -> None:
    """Refuse what the two schemas prove impossible.

    Args:
        mapping: the backup's argument names → paths into the first tool's arguments, or literals.
        source: the input schema of the tool that is backed up.
        target: the input schema of the backup.

    Raises:
        MappingInvalid: an argument that the first tool can't have, that the backup does not take, or that it requires
            and the mapping does not give.
    """
    for name, value in mapping.items():
        steps = jsonpath.parse(value) if jsonpath.is_path(value) else ()
        if steps and isinstance(steps[0], str) and _closed(source) and steps[0] not in (source.get("properties") or {}):
            raise MappingInvalid(f"argument {name!r} is taken from {value}, but there is no argument {steps[0]!r}")
        if _closed(target) and name not in (target.get("properties") or {}):
            raise MappingInvalid(f"the backup has no argument {name!r}")
    if mapping:
        missing = [name for name in target.get("required") or [] if name not in mapping]
        if missing:
            raise MappingInvalid(
                f"the backup requires {', '.join(map(repr, missing))}, which the mapping does not give"
            )


def _closed(schema: Mapping[str, Any]) -> bool:
    """Whether arguments that `properties` does not name are certainly wrong or at least meaningless."""
    if schema.get("additionalProperties") not in (None, False) or "patternProperties" in schema:
        return False
    return bool(schema.get("properties")) and not {"$ref", "allOf", "anyOf", "oneOf"} & set(schema)


def arguments(mapping: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The backup's arguments. Raises `KeyError(path)` when an argument that the mapping names was not given."""
    if not mapping:
        return dict(given)
    return {name: jsonpath.read(value, given) for name, value in mapping.items()}


def result(mapping: Mapping[str, Any], got: ToolResult) -> ToolResult:
    """The first tool's result out of the backup's.

    `text` in the mapping makes the content; every other name becomes a key of the structured content. Raises
    `KeyError(path)` when the backup's result lacks what the mapping names.
    """
    if not mapping:
        return got
    document = {"content": list(got.content), "structuredContent": got.structured, "isError": not got.ok}
    values = {name: jsonpath.read(value, document) for name, value in mapping.items()}
    content = got.content
    if "text" in values:
        text = values.pop("text")
        content = ({"type": "text", "text": text if isinstance(text, str) else _json(text)},)
    return ToolResult(got.outcome, content, values or None, got.error, got.meta)


def _json(value: Any) -> str:
    import json

    return json.dumps(value, ensure_ascii=False)
