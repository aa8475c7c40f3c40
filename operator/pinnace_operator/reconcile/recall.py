"""Reading a status that was written before, by this version or another one."""

from __future__ import annotations

from typing import TypeVar

from pydantic import ValidationError

from pinnace_operator.api.base import ApiModel
from pinnace_operator.api.conditions import Condition
from pinnace_operator.reconcile.plan import Raw

Status = TypeVar("Status", bound=ApiModel)
_MOST_CONDITIONS = 16


def recall(model: type[Status], raw: Raw | None) -> Status:
    """The status. What this version can't read (another one wrote it, or a hand) is left out by field."""
    given = dict(raw or {})
    try:
        return model.from_manifest(given)
    except ValidationError:
        conditions = [each for each in given.pop("conditions", None) or () if _readable(Condition, each)]
        kept = {name: value for name, value in given.items() if _readable(model, {name: value})}
        unique = {each["type"]: each for each in conditions}
        return model.from_manifest({**kept, "conditions": list(unique.values())[:_MOST_CONDITIONS]})


def _readable(model: type[ApiModel], value: dict[str, object]) -> bool:
    try:
        model.from_manifest(value)
    except ValidationError:
        return False
    return True
