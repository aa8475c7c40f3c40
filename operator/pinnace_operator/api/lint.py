"""Our conventions for CRD schemas, checked on the generated files: `python -m pinnace_operator.api.lint`."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from typing import Any, get_args

import yaml

from pinnace_operator.api.base import VALIDATIONS
from pinnace_operator.api.generate import rendered
from pinnace_operator.api.toolsessions import SandboxServer

Schema = dict[str, Any]

# Booleans that stay booleans, and why an enum would not be better.
BOOLEANS = {
    "spec.suspend": "the convention of Job, JobSet and Kueue",
    "spec.training.packing": "on or off, as in every trainer; a third way is not in sight",
    "spec.training.gradientCheckpointing": "on or off, as in every trainer",
    "spec.trainer.gradientCheckpointing": "on or off, as in every trainer",
    "spec.tracking.tensorboard": "on or off; settings would be an object beside it",
    **dict.fromkeys(
        (
            *(
                f"spec.method.{method}.normalize"
                for method in (
                    "linear", "taskArithmetic", "ties", "dareLinear", "dareTies", "della", "dellaLinear", "breadcrumbs",
                    "breadcrumbsTies",
                )
            ),
            "spec.method.multislerp.normalizeWeights",
            "spec.method.nuslerp.flatten",
            "spec.method.nuslerp.rowWise",
            "spec.method.modelStock.filterWise",
        ),
        "on or off in the method's formula, as in mergekit",
    ),
}  # fmt: skip
# Enum values that are not CamelCase, because they are names from elsewhere.
FOREIGN_VALUES = {"bf16", "fp16", "fp32", "fp64", "cpu", "cuda", *get_args(SandboxServer)}

_CAMEL_FIELD = re.compile(r"[a-z][a-zA-Z0-9]*")
_CAMEL_VALUE = re.compile(r"[A-Z][a-zA-Z0-9]*")
_DURATION = re.compile(r"(seconds|timeout|period|interval|ttl|deadline|duration)$", re.IGNORECASE)
_NOT_STRUCTURAL = {"$ref", "anyOf", "oneOf", "allOf", "not", "x-kubernetes-preserve-unknown-fields"}
_CONDITION = {"type", "status", "reason", "message", "observedGeneration", "lastTransitionTime"}
_BOUNDS = {"string": ("minLength", "maxLength"), "array": ("minItems", "maxItems")}
_TYPES = {"string": str, "integer": int, "boolean": bool, "array": list, "object": dict}


def lint(crd: dict[str, Any]) -> list[str]:
    """Every broken convention as `version: path: what is wrong`."""
    return [
        f"{crd['spec']['names']['kind']}/{version['name']}: {path}: {problem}"
        for version in crd["spec"]["versions"]
        for path, problem in _lint_root(version["schema"]["openAPIV3Schema"])
    ]


def _lint_root(schema: Schema) -> Iterator[tuple[str, str]]:
    for name, each in schema.get("properties", {}).items():
        if name in {"spec", "status"}:
            yield from _lint_field(name, each)
    conditions = schema.get("properties", {}).get("status", {}).get("properties", {}).get("conditions")
    if conditions is None:
        yield "status.conditions", "is missing"
    else:
        yield from _lint_conditions(conditions)


def _lint_field(path: str, schema: Schema) -> Iterator[tuple[str, str]]:
    if not schema.get("description"):
        yield path, "has no description: add a docstring below the field"
    if not _CAMEL_FIELD.fullmatch(path.rsplit(".", 1)[-1]):
        yield path, "is not camelCase"
    yield from _lint_node(path, schema)


def _lint_node(path: str, schema: Schema) -> Iterator[tuple[str, str]]:
    foreign = sorted(_NOT_STRUCTURAL & schema.keys())
    if foreign:
        yield path, f"uses {', '.join(foreign)}: say it structurally or in CEL"
        return
    if schema.get("x-kubernetes-int-or-string"):
        if "maxLength" not in schema:
            yield path, "has no maxLength"
    elif schema.get("type") in _CHECKS:
        yield from _CHECKS[schema["type"]](path, schema)
    else:
        yield path, f"has type {schema.get('type')!r}: the API knows strings, integers, booleans, lists and objects"
    if "default" in schema:
        yield from ((path, f"default {problem}") for problem in _invalid(schema, schema["default"]))
    for rule in schema.get(VALIDATIONS, ()):
        if not rule.get("message"):
            yield path, f"the rule {rule['rule']!r} has no message"


def _string(path: str, schema: Schema) -> Iterator[tuple[str, str]]:
    if "enum" in schema:
        values = set(schema["enum"])
        for value in sorted(each for each in values - FOREIGN_VALUES if not _CAMEL_VALUE.fullmatch(each)):
            yield path, f"enum value {value!r} is not CamelCase"
    elif "maxLength" not in schema:
        yield path, "has no maxLength"


def _integer(path: str, schema: Schema) -> Iterator[tuple[str, str]]:
    for bound in ("minimum", "maximum"):
        if bound not in schema:
            yield path, f"has no {bound}"
    if _DURATION.search(path) and not path.endswith("Seconds"):
        yield path, "is a duration: its name must end in Seconds"


def _boolean(path: str, _: Schema) -> Iterator[tuple[str, str]]:
    if path not in BOOLEANS:
        yield path, "is a boolean: use an enum, or list it in BOOLEANS with the reason"


def _array(path: str, schema: Schema) -> Iterator[tuple[str, str]]:
    kind = schema.get("x-kubernetes-list-type")
    if kind not in {"atomic", "set", "map"}:
        yield path, "has no x-kubernetes-list-type"
    if (
        kind == "map"
        and not set(schema.get("x-kubernetes-list-map-keys", ())) & schema["items"].get("properties", {}).keys()
    ):
        yield path, "is a map without x-kubernetes-list-map-keys among its items' fields"
    if "maxItems" not in schema:
        yield path, "has no maxItems"
    yield from _lint_node(f"{path}[]", schema["items"])


def _object(path: str, schema: Schema) -> Iterator[tuple[str, str]]:
    if "properties" in schema:
        for name, each in schema["properties"].items():
            yield from _lint_field(f"{path}.{name}", each)
    elif isinstance(schema.get("additionalProperties"), dict):
        if "maxProperties" not in schema:
            yield path, "has no maxProperties"
        yield from _lint_node(f"{path}{{}}", schema["additionalProperties"])
    else:
        yield path, "is an object without fields"


_CHECKS: dict[str, Callable[[str, Schema], Iterator[tuple[str, str]]]] = {
    "string": _string,
    "integer": _integer,
    "boolean": _boolean,
    "array": _array,
    "object": _object,
}


def _invalid(schema: Schema, value: Any) -> Iterator[str]:
    """Why a default breaks its own schema."""
    expected: Any = _TYPES.get(schema.get("type", ""), object)
    if not isinstance(value, expected) or (isinstance(value, bool) and expected is int):
        yield f"{value!r} is not of type {schema.get('type')}"
    elif "enum" in schema and value not in schema["enum"]:
        yield f"{value!r} is not one of {schema['enum']}"
    elif isinstance(value, dict):
        yield from _invalid_object(schema, value)
    else:
        size = value if isinstance(value, int) else len(value)
        low, high = _BOUNDS.get(schema.get("type", ""), ("minimum", "maximum"))
        if not schema.get(low, size) <= size <= schema.get(high, size):
            yield f"{value!r} is not within {low} and {high}"
        if "pattern" in schema and not re.search(schema["pattern"], value):
            yield f"{value!r} does not match {schema['pattern']}"


def _invalid_object(schema: Schema, value: dict[str, Any]) -> Iterator[str]:
    properties = schema.get("properties", {})
    for name in sorted(value.keys() - properties.keys()):
        yield f"has the unknown field {name}"
    for name in sorted(set(schema.get("required", ())) - value.keys()):
        yield f"lacks the required field {name}"
    for name in sorted(value.keys() & properties.keys()):
        yield from (f".{name}: {problem}" for problem in _invalid(properties[name], value[name]))


def _lint_conditions(schema: Schema) -> Iterator[tuple[str, str]]:
    path = "status.conditions"
    if schema.get("x-kubernetes-list-type") != "map" or schema.get("x-kubernetes-list-map-keys") != ["type"]:
        yield path, "must be a map keyed by type"
    fields = set(schema.get("items", {}).get("properties", {}))
    if fields != _CONDITION:
        yield path, f"must have the fields {', '.join(sorted(_CONDITION))}"


def main() -> int:
    """Print every problem; 1 when there is one."""
    problems = [problem for text in rendered().values() for problem in lint(yaml.safe_load(text))]
    for problem in problems:
        print(problem)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
