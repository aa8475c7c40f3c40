"""From pydantic's JSON schema to the structural schema that a CRD needs."""

from __future__ import annotations

import re
from typing import Any

from pinnace_operator.api.base import VALIDATIONS, ApiModel

Schema = dict[str, Any]

_DROPPED = frozenset({"title", "$defs", "default_factory"})


def structural_schema(model: type[ApiModel]) -> Schema:
    """The model as OpenAPI v3 without $ref, anyOf and null: every node has a type, a description and its defaults."""
    document = model.model_json_schema(by_alias=True)
    return _structural(document, document.get("$defs", {}))


def _structural(node: Schema, definitions: dict[str, Schema]) -> Schema:
    node = _resolved(node, definitions)
    schema = {key: value for key, value in node.items() if key not in _DROPPED}
    if "const" in schema:
        schema["enum"] = [schema.pop("const")]
    if "description" in schema:
        schema["description"] = _paragraphs(schema["description"])
    if schema.get("default", ...) in (None, []):
        # Absent and empty mean the same; a default would only be noise in everyone's objects.
        del schema["default"]
    if "properties" in schema:
        # Objects refuse unknown fields by being structural: strict field validation, kubectl's default, names them.
        schema.pop("additionalProperties", None)
        schema["properties"] = {
            name: _with_object_default(_structural(each, definitions), optional=name not in schema.get("required", ()))
            if not _is_nullable(each)
            else _structural(each, definitions)
            for name, each in schema["properties"].items()
        }
    elif isinstance(schema.get("additionalProperties"), dict):
        schema["additionalProperties"] = _structural(schema["additionalProperties"], definitions)
    if "items" in schema:
        schema["items"] = _structural(schema["items"], definitions)
    return schema


def _resolved(node: Schema, definitions: dict[str, Schema]) -> Schema:
    """Follow $ref and drop null; what stands beside them wins, so that a field's own description does."""
    beside = {key: value for key, value in node.items() if key not in {"$ref", "anyOf"}}
    if "$ref" in node:
        target = definitions[node["$ref"].removeprefix("#/$defs/")]
    elif "anyOf" in node:
        (target,) = [each for each in node["anyOf"] if each.get("type") != "null"]
    else:
        return node
    inner = _resolved(target, definitions)
    rules = [*inner.get(VALIDATIONS, []), *beside.get(VALIDATIONS, [])]
    return {**inner, **beside, **({VALIDATIONS: rules} if rules else {})}


def _is_nullable(node: Schema) -> bool:
    return any(each.get("type") == "null" for each in node.get("anyOf", ()))


def _with_object_default(schema: Schema, *, optional: bool) -> Schema:
    """Objects that are always there. The default is written out: the API server checks rules on it as it stands."""
    if optional and "properties" in schema:
        each = schema["properties"].items()
        schema["default"] = {name: inner["default"] for name, inner in each if "default" in inner}
    return schema


def _paragraphs(text: str) -> str:
    """Undo the source's line breaks; kubectl wraps by itself."""
    return "\n\n".join(re.sub(r"\s*\n\s*", " ", part.strip()) for part in re.split(r"\n\s*\n", text.strip()))
