"""The schema lint accepts our CRDs and finds each broken convention."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import yaml
from pinnace_operator.api import generate
from pinnace_operator.api.kinds import KINDS
from pinnace_operator.api.lint import BOOLEANS, lint

GOOD: dict[str, Any] = {
    "spec": {"names": {"kind": "Boat"}, "versions": [{"name": "v1", "schema": {"openAPIV3Schema": {}}}]},
}
TIME = {"type": "string", "maxLength": 64, "description": "d"}
CONDITIONS: dict[str, Any] = {
    "type": "array",
    "description": "d",
    "maxItems": 8,
    "x-kubernetes-list-type": "map",
    "x-kubernetes-list-map-keys": ["type"],
    "items": {
        "type": "object",
        "properties": {
            **dict.fromkeys(("type", "status", "reason", "message", "lastTransitionTime"), TIME),
            "observedGeneration": {"type": "integer", "minimum": 0, "maximum": 9, "description": "d"},
        },
    },
}


def boat(name: str, field: dict[str, Any], conditions: dict[str, Any] | None = None) -> dict[str, Any]:
    crd = copy.deepcopy(GOOD)
    crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"] = {
        "properties": {
            "spec": {"type": "object", "description": "d", "properties": {name: {"description": "d"} | field}},
            "status": {
                "type": "object",
                "description": "d",
                "properties": {"conditions": CONDITIONS if conditions is None else conditions},
            },
        }
    }
    return crd


WORD = {"type": "string", "maxLength": 9}
BROKEN = [
    ("text", {"type": "string"}, "has no maxLength"),
    ("text", {**WORD, "description": ""}, "has no description"),
    ("some_text", WORD, "is not camelCase"),
    ("choice", {"type": "string", "enum": ["left-handed"]}, "'left-handed' is not CamelCase"),
    ("size", {"type": "number"}, "has type 'number'"),
    ("size", {"type": "integer", "maximum": 3}, "has no minimum"),
    ("size", {"type": "integer", "minimum": 3}, "has no maximum"),
    ("waitTimeout", {"type": "integer", "minimum": 0, "maximum": 3}, "must end in Seconds"),
    ("fast", {"type": "boolean"}, "use an enum"),
    ("names", {"type": "array", "maxItems": 3, "items": WORD}, "has no x-kubernetes-list-type"),
    ("names", {"type": "array", "x-kubernetes-list-type": "set", "items": WORD}, "has no maxItems"),
    (
        "names",
        {"type": "array", "x-kubernetes-list-type": "atomic", "maxItems": 3, "items": {"type": "string"}},
        "spec.names[]: has no maxLength",
    ),
    (
        "parts",
        {
            "type": "array",
            "maxItems": 3,
            "x-kubernetes-list-type": "map",
            "items": {"type": "object", "properties": {"name": {**WORD, "description": "d"}}},
        },
        "without x-kubernetes-list-map-keys",
    ),
    ("labels", {"type": "object", "additionalProperties": WORD}, "has no maxProperties"),
    (
        "labels",
        {"type": "object", "maxProperties": 3, "additionalProperties": {"type": "string"}},
        "labels{}: has no maxLength",
    ),
    ("anything", {"type": "object"}, "is an object without fields"),
    (
        "anything",
        {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
        "uses x-kubernetes-preserve-unknown",
    ),
    ("either", {"anyOf": [WORD, {"type": "null"}]}, "uses anyOf"),
    ("amount", {"x-kubernetes-int-or-string": True}, "has no maxLength"),
    ("text", {**WORD, "default": "much too long"}, "is not within minLength and maxLength"),
    ("text", {**WORD, "default": 3}, "is not of type string"),
    ("text", {**WORD, "pattern": "^a", "default": "b"}, "does not match"),
    ("choice", {"type": "string", "enum": ["Left"], "default": "Right"}, "is not one of"),
    ("size", {"type": "integer", "minimum": 1, "maximum": 3, "default": 4}, "is not within minimum and maximum"),
    (
        "part",
        {"type": "object", "properties": {"a": {**WORD, "description": "d"}}, "default": {"b": "x"}},
        "unknown field b",
    ),
    (
        "part",
        {"type": "object", "properties": {"a": {**WORD, "description": "d"}}, "default": {"a": 1}},
        ".a: 1 is not",
    ),
    ("text", {**WORD, "x-kubernetes-validations": [{"rule": "self != ''"}]}, "has no message"),
]


@pytest.mark.parametrize(("name", "field", "finds"), BROKEN, ids=[f"{name}: {finds}" for name, _, finds in BROKEN])
def test_a_broken_convention_is_found_once(name: str, field: dict[str, Any], finds: str) -> None:
    (problem,) = lint(boat(name, field))
    assert finds in problem
    assert problem.startswith(f"Boat/v1: spec.{name}")


@pytest.mark.parametrize(
    ("change", "finds"),
    [
        ({"x-kubernetes-list-map-keys": ["reason"]}, "keyed by type"),
        ({"items": {"type": "object", "properties": {"type": TIME}}}, "must have the fields"),
    ],
)
def test_conditions_have_the_shape_of_kubernetes(change: dict[str, Any], finds: str) -> None:
    assert any(finds in problem for problem in lint(boat("text", WORD, CONDITIONS | change)))


def test_a_good_schema_passes() -> None:
    assert lint(boat("text", WORD)) == []


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_our_crds_pass(kind: Any) -> None:
    assert lint(generate.crd(kind)) == []


def test_every_exempt_boolean_still_exists() -> None:
    crds = [yaml.safe_load(text) for text in generate.rendered().values()]
    roots = [crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"] for crd in crds]
    assert [path for path in BOOLEANS if not any(_boolean(root, path.split(".")) for root in roots)] == []


def _boolean(node: dict[str, Any], names: list[str]) -> bool:
    for name in names:
        node = node.get("properties", {}).get(name, {})
    return node.get("type") == "boolean"


def test_the_committed_crds_are_what_the_models_say() -> None:
    assert generate.main(["--check"]) == 0
