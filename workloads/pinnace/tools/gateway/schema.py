"""A tool's input schema, compiled once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jsonschema.exceptions import SchemaError, best_match
from jsonschema.validators import validator_for

_JSON_TYPES = {"object", "array", "string", "number", "integer", "boolean", "null"}
_PLAIN = {"string": str, "boolean": bool, "array": list, "object": dict}
_NOTES = {"title", "description", "default", "examples", "x-mcp-header", "format", "$schema", "additionalProperties"}
_VALUES = {"default", "examples", "const", "enum"}  # what stands there is no schema


class ArgumentSchema:
    """Tells whether arguments fit, and where they do not.

    Most calls fit, and most tools take a flat object of plain values: a few type checks (1 µs) accept those; the
    library (some 50 µs) decides everything else.
    """

    def __init__(self, schema: Mapping[str, Any]) -> None:
        self.fault = ""
        # `format` is an annotation unless a checker is given; `$ref` to a remote schema is never fetched.
        kind = validator_for(schema, default=validator_for({"$schema": "https://json-schema.org/draft/2020-12/schema"}))
        try:
            kind.check_schema(dict(schema))
        except SchemaError as error:
            self.fault = (
                f"the input schema is not valid ({error.json_path}: {error.message}): arguments are not checked"
            )
        self._validator = kind(dict(schema))
        self._required = tuple(schema.get("required") or ())
        self._flat = None if self.fault else _flat(schema)
        self._open = schema.get("additionalProperties") in (None, True)

    def problem(self, arguments: Mapping[str, Any]) -> tuple[str, str] | None:
        """None when they fit, else (JSON path, message), for the most telling fault."""
        if self.fault or (self._flat is not None and self._fits(arguments, self._flat)):
            return None
        try:
            error = best_match(self._validator.iter_errors(arguments))
        except Exception as failure:  # noqa: BLE001 - a `$ref` that leads nowhere is the tool's fault, not the caller's
            self.fault = f"the input schema can't be used ({failure}): arguments are not checked"
            return None
        return None if error is None else (error.json_path, error.message[:500])

    def _fits(self, arguments: Mapping[str, Any], flat: Mapping[str, type]) -> bool:
        for name in self._required:
            if name not in arguments:
                return False
        for name, value in arguments.items():
            kind = flat.get(name)
            if kind is None:
                if not self._open:
                    return False
            elif kind is int:  # also JSON's `number`; a bool is an int in Python, but no number in JSON
                if type(value) is not int:
                    return False
            elif not isinstance(value, kind):
                return False
        return True


def _flat(schema: Mapping[str, Any]) -> dict[str, type] | None:
    """Python types by property, if plain types are all that the schema asks for; else None."""
    if not set(schema) <= _NOTES | {"type", "properties", "required", "$defs"} or schema.get("type") != "object":
        return None
    if schema.get("additionalProperties") not in (None, True, False):
        return None
    types: dict[str, type] = {}
    for name, part in (schema.get("properties") or {}).items():
        if not isinstance(part, Mapping) or not set(part) <= _NOTES | {"type"}:
            continue  # a value for it is left to the library: `None` in the table would mean unknown
        kind = part.get("type")
        if kind in ("integer", "number"):
            types[name] = int
        elif kind in _PLAIN:
            types[name] = _PLAIN[kind]
    hard = set(schema.get("properties") or {}) - set(types)
    return None if hard else types


def untitled(schema: Any) -> Any:
    """Without the titles that generators derive from names: a model pays tokens for them and learns nothing."""
    if isinstance(schema, list):
        return [untitled(each) for each in schema]
    if not isinstance(schema, Mapping):
        return schema
    return {
        key: value if key in _VALUES else untitled(value)
        for key, value in schema.items()
        if not (key == "title" and isinstance(value, str))
    }
