"""What is wrong with a spec, in words for people."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

_PROBLEMS = 5


def problems(error: ValidationError) -> str:
    """The first few problems, each with the field it is about."""
    return "; ".join(_problem(dict(each)) for each in error.errors(include_url=False, include_input=False)[:_PROBLEMS])


def _problem(error: dict[str, Any]) -> str:
    where = ".".join(str(part) for part in error["loc"])
    return f"{where}: {error['msg']}" if where else str(error["msg"])
