"""Types of single fields: names, URIs, decimals, quantities and times, with the messages that users get."""

from __future__ import annotations

import re
from datetime import UTC
from decimal import Decimal
from typing import Annotated

from pydantic import AwareDatetime, Field, PlainSerializer, Strict, WithJsonSchema

from pinnace_operator.api.base import Rule, matches

_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"

ObjectName = Annotated[
    str,
    Field(min_length=1, max_length=253),
    matches(
        rf"{_LABEL}(\.{_LABEL})*",
        "must be the name of a Kubernetes object: lower-case letters, digits, '-' and '.', such as 'my-secret'",
    ),
]
Label = Annotated[
    str,
    Field(min_length=1, max_length=63),
    matches(_LABEL, "must be lower-case letters, digits and '-', at most 63 of them, such as 'team-queue'"),
]
ConfigMapKey = Annotated[
    str,
    Field(min_length=1, max_length=253),
    matches(
        r"[-._a-zA-Z0-9]+", "must be a key of the ConfigMap: letters, digits, '-', '_' and '.', such as 'train.jsonl'"
    ),
]
S3Uri = Annotated[
    str,
    Field(min_length=6, max_length=1024),
    matches(
        r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]/[^\s]+",
        "must be an S3 address with bucket and path, such as 's3://bucket/models/qwen3-4b'",
    ),
]
HubRepo = Annotated[
    str,
    Field(min_length=3, max_length=200),
    matches(r"[\w.-]+/[\w.-]+", "must be 'owner/name' of a repository on the hub, such as 'Qwen/Qwen3-4B'"),
]
HubRevision = Annotated[
    str,
    Field(min_length=1, max_length=200),
    matches(r"[\w./-]+", "must be a commit, tag or branch; only a commit makes the run repeatable"),
]
Image = Annotated[
    str,
    Field(min_length=1, max_length=512),
    matches(
        r"[a-z0-9][\w.:/@-]*",
        "must be an image reference without spaces, such as 'registry.example.com/pinnace/trainer:0.1.0'",
    ),
]
HttpUrl = Annotated[
    str,
    Field(min_length=8, max_length=512),
    matches(r"https?://[^\s/]+(/[^\s]*)?", "must be an http or https URL, such as 'https://s3.example.com'"),
]
Bucket = Annotated[
    str,
    Field(min_length=3, max_length=63),
    matches(r"[a-z0-9][a-z0-9.-]*[a-z0-9]", "must be a bucket's name without 's3://' and path, such as 'pinnace'"),
]
Prefix = Annotated[
    str,
    Field(max_length=512),
    matches(r"([^\s/]+(/[^\s/]+)*)?", "must be a path without leading or trailing '/', such as 'teams/search'"),
]
Digest = Annotated[
    str, Field(max_length=71), matches(r"sha256:[0-9a-f]{64}", "must be 'sha256:' and 64 hexadecimal digits")
]

_NUMBER = r"[0-9]{1,9}(\.[0-9]{1,12})?([eE][-+]?[0-9]{1,2})?"


def decimal_between(low: str, high: str, message: str, *, above_low: bool = False, below_high: bool = False) -> Rule:
    """A decimal in a string (the API has no floats) within bounds; `above_low` and `below_high` exclude the bound."""
    lower, upper = (">" if above_low else ">="), ("<" if below_high else "<=")
    pattern = re.compile(_NUMBER)

    def check(value: str) -> bool:
        if not pattern.fullmatch(value):
            return False
        number, least, most = float(value), float(low), float(high)
        return (number > least if above_low else number >= least) and (number < most if below_high else number <= most)

    bounds = f"double(self) {lower} double('{low}') && double(self) {upper} double('{high}')"
    return Rule(f"self.matches(r'^(?:{_NUMBER})$') && {bounds}", message, check)


DecimalString = Annotated[str, Field(min_length=1, max_length=24)]
"""A decimal number in quotes; use `float(...)` on it. Bounds come from `decimal_between`."""

_QUANTITY = re.compile(r"([0-9]+(?:\.[0-9]+)?)(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?")
_FACTORS = {
    "m": Decimal("0.001"),
    "": Decimal(1),
    **{unit: Decimal(1000) ** power for power, unit in enumerate("kMGTPE", 1)},
    **{f"{unit}i": Decimal(1024) ** power for power, unit in enumerate("KMGTPE", 1)},
}


def is_quantity(value: int | str) -> bool:
    return value >= 0 if isinstance(value, int) else _QUANTITY.fullmatch(value) is not None


def quantity_value(value: int | str) -> Decimal:
    """A Kubernetes quantity as a number of cores, bytes or devices.

    Raises:
        ValueError: it is not a quantity.
    """
    found = _QUANTITY.fullmatch(str(value))
    if not found:
        raise ValueError(f"{value!r} is not a quantity")
    return Decimal(found[1]) * _FACTORS[found[2] or ""]


Quantity = Annotated[
    Annotated[int, Strict()] | Annotated[str, Field(max_length=24)],
    WithJsonSchema({"x-kubernetes-int-or-string": True, "maxLength": 24}),
    Rule(
        f"type(self) == int ? self >= 0 : self.matches(r'^(?:{_QUANTITY.pattern})$')",
        "must be a quantity such as 4, '500m' or '16Gi'",
        is_quantity,
    ),
]

Time = Annotated[
    AwareDatetime,
    PlainSerializer(
        lambda time: time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"), return_type=str, when_used="json"
    ),
    WithJsonSchema({"type": "string", "format": "date-time", "maxLength": 64}),
]


def whole(low: int, high: int) -> object:
    """Bounds of an integer that must not be written as a string: `Annotated[int, whole(1, 8)]`."""
    return Field(strict=True, ge=low, le=high)
