"""What the API's models are made of: the base class, and rules that the API server and Python share."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler, GetJsonSchemaHandler, model_validator
from pydantic.alias_generators import to_camel
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

GROUP = "pinnace.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"

VALIDATIONS = "x-kubernetes-validations"


@dataclass(frozen=True)
class Rule:
    """One constraint said twice: in CEL for the API server, as a predicate for Python.

    It stands in a model's `rules`, or in `Annotated[...]` of a single field. The two forms stand side by side because
    they must agree; a property test sends random specs to both.
    """

    cel: str
    """The CEL expression; `self` is the value (and `oldSelf` the one before, in rules about changes)."""
    message: str
    """What the user reads: which field, what is wrong, what to do."""
    check: Callable[[Any], bool] | None = None
    """True when the value is fine. None for rules about changes, which only the API server can see."""
    field: str | None = None
    """JSONPath below the model (`.lora`) that the error is reported for; the model itself when None."""

    def to_schema(self) -> dict[str, str]:
        schema = {"rule": self.cel, "message": self.message}
        if self.field:
            schema["fieldPath"] = self.field
        return schema

    def holds(self, value: Any) -> bool:
        return self.check is None or self.check(value)

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        def validate(value: Any) -> Any:
            if not self.holds(value):
                raise ValueError(self.message)
            return value

        return core_schema.no_info_after_validator_function(validate, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        json_schema = handler(schema)
        json_schema[VALIDATIONS] = [*json_schema.get(VALIDATIONS, []), self.to_schema()]
        return json_schema


def matches(pattern: str, message: str) -> Rule:
    """The whole string matches `pattern` (syntax that RE2 and Python share); users read `message` instead of it."""
    compiled = re.compile(pattern)
    return Rule(f"self.matches(r'^(?:{pattern})$')", message, lambda value: compiled.fullmatch(value) is not None)


@dataclass(frozen=True)
class ListType:
    """How server-side apply merges a list: `atomic`, `set`, or `map` with the keys that name an item."""

    kind: str = "atomic"
    keys: tuple[str, ...] = ()

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        def unique(items: tuple[Any, ...]) -> tuple[Any, ...]:
            identities = [tuple(getattr(item, key) for key in self.keys) if self.keys else item for item in items]
            if len(set(identities)) < len(identities):
                raise ValueError(
                    f"the list has duplicates{' of ' + ', '.join(self.keys) if self.keys else ''}: remove one"
                )
            return items

        inner = handler(source)
        return inner if self.kind == "atomic" else core_schema.no_info_after_validator_function(unique, inner)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        json_schema = handler(schema)
        json_schema["x-kubernetes-list-type"] = self.kind
        if self.keys:
            json_schema["x-kubernetes-list-map-keys"] = [to_camel(key) for key in self.keys]
        return json_schema


class ApiModel(BaseModel):
    """A part of a resource: camelCase in manifests, snake_case in Python, immutable, unknown fields refused.

    The docstring under a field is what `kubectl explain` prints.
    """

    model_config = ConfigDict(
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        serialize_by_alias=True,
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
    )

    rules: ClassVar[tuple[Rule, ...]] = ()

    @model_validator(mode="after")
    def _obey_rules(self) -> Self:
        broken = [rule.message for rule in self.rules if not rule.holds(self)]
        if broken:
            raise ValueError("; ".join(broken))
        return self

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        json_schema = handler.resolve_ref_schema(handler(schema))
        if cls.rules:
            json_schema[VALIDATIONS] = [rule.to_schema() for rule in cls.rules]
        return json_schema

    @classmethod
    def from_manifest(cls, manifest: dict[str, Any]) -> Self:
        """Parse what the API server or a YAML file holds.

        Raises:
            pydantic.ValidationError: it breaks the schema or a rule; each error says where and what to do.
        """
        return cls.model_validate(manifest, by_alias=True, by_name=False)

    def to_manifest(self) -> dict[str, Any]:
        """The JSON form: camelCase, times as RFC 3339, absent fields and empty lists left out."""
        manifest: dict[str, Any] = _without_empty_lists(self.model_dump(mode="json", by_alias=True, exclude_none=True))
        return manifest


def _without_empty_lists(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_empty_lists(each) for key, each in value.items() if each != []}
    return [_without_empty_lists(each) for each in value] if isinstance(value, list) else value
