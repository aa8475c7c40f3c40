"""Context policies: how a log becomes what the model sees. Data, hashed, and reported with every result."""

from __future__ import annotations

import hashlib
import json
from difflib import get_close_matches
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.alias_generators import to_camel


class PolicyError(ValueError):
    """A policy that can't be used; the message names the field."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True)


class KeepLast(_Part):
    """Older results become stubs with an id by which the model can read them again.

    Attributes:
        results: results that stay in view.
        every: the border moves in steps of so many results. 1 is exact; more keeps the server's prefix cache valid for
            so many results, at the price of up to `every - 1` results more in view.
    """

    results: int = Field(5, ge=1)
    every: int = Field(1, ge=1)


class RefineRule(_Part):
    """Long results are read by a second model with the goal in mind, which quotes evidence.

    Attributes:
        over_tokens: shorter results are shown as they are.
        input_tokens: longer ones are cut to this for the second model.
        output_tokens: the most that it may write.
        tools: names of the tools it applies to; empty: all.
    """

    over_tokens: int = Field(1_500, ge=1)
    input_tokens: int = Field(58_000, ge=1)
    output_tokens: int = Field(1_500, ge=64)
    tools: tuple[str, ...] = ()


class FoldRule(_Part):
    """When the view reaches a share of the budget, what came before the last steps is folded into a few lines.

    Attributes:
        at_percent: share of the budget.
        mode: `summary`: {facts with sources, dead ends, next step} by a second model; `discard`: everything goes.
        keep_steps: last steps that stay as they are.
        output_tokens: the most that the second model may write.
    """

    at_percent: int = Field(90, ge=10, le=100)
    mode: Literal["summary", "discard"] = "summary"
    keep_steps: int = Field(1, ge=1)
    output_tokens: int = Field(2_000, ge=64)


class Policy(_Part):
    """One policy. What it leaves out does not happen.

    Attributes:
        result_tokens: cap of one result in view; head and tail stay.
        overflow: when nothing else helps: `dropOldest` steps, or `answer` from what is there.
        reasoning: whose thoughts the model is shown again: of `all` turns or of `none`.
    """

    name: str = Field(min_length=1, max_length=63)
    result_tokens: int | None = Field(None, ge=16)
    keep_last: KeepLast | None = None
    refine: RefineRule | None = None
    fold: FoldRule | None = None
    overflow: Literal["dropOldest", "answer"] = "dropOldest"
    reasoning: Literal["all", "none"] = "all"

    @model_validator(mode="after")
    def _consistent(self) -> Policy:
        if self.fold is not None and self.overflow == "answer" and self.fold.at_percent == 100:
            raise ValueError("fold.atPercent 100 with overflow `answer` never folds: lower atPercent")
        return self

    @property
    def hides(self) -> bool:
        """Whether results may leave the view, so that the tool `recall` is offered."""
        return bool(self.result_tokens or self.keep_last or self.refine or self.fold)

    @property
    def digest(self) -> str:
        """SHA-256 of everything but the name: two policies with the same digest show the same."""
        body = self.model_dump(mode="json", by_alias=True, exclude={"name"})
        return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def read_policy(text: str, *, where: str = "the policy") -> Policy:
    """From YAML. Raises `PolicyError`; unknown fields are refused."""
    try:
        return Policy.model_validate(yaml.safe_load(text))
    except (yaml.YAMLError, ValidationError) as error:
        raise PolicyError(f"{where}: {error}") from None


@cache
def shipped() -> dict[str, Policy]:
    """The policies that come with Pinnace, by name."""
    folder = resources.files(__package__) / "policies"
    found = [read_policy(each.read_text(), where=each.name) for each in folder.iterdir() if each.name.endswith(".yaml")]
    return {policy.name: policy for policy in sorted(found, key=lambda policy: policy.name)}


def find_policy(name: str) -> Policy:
    """A shipped policy by name, or one from a YAML file. Raises `PolicyError` with the nearest names."""
    if name in shipped():
        return shipped()[name]
    path = Path(name)
    if path.suffix in {".yaml", ".yml"}:
        if not path.is_file():
            raise PolicyError(f"there is no policy file {name}")
        return read_policy(path.read_text(), where=name)
    near = get_close_matches(name, shipped(), n=2) or list(shipped())
    raise PolicyError(f"unknown policy {name!r}: did you mean {' or '.join(near)}? Or give a .yaml file")
