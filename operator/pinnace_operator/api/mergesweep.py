"""The sweep of a MergeJob: what to try, and how to score it."""

from __future__ import annotations

from enum import StrEnum
from math import prod
from typing import Annotated

from pydantic import Field

from pinnace_operator.api.base import ApiModel, ListType, Rule
from pinnace_operator.api.fields import Label, whole
from pinnace_operator.api.merge_status import MOST_CANDIDATES
from pinnace_operator.api.mergemethods import Parameter, Share, Signed
from pinnace_operator.api.shared import DataSource

_MOST_AXES = 4


class SweepAxis(ApiModel):
    """One parameter of a sweep and the values to try."""

    parameter: Parameter
    """The parameter, such as weight, density, lambda or t."""
    model: Label | None = None
    """The model it is for (models[].name); all when it is absent."""
    values: Annotated[tuple[Signed, ...], Field(min_length=1, max_length=MOST_CANDIDATES), ListType("set")]
    """The values, decimals in quotes."""


class HeldOutLoss(ApiModel):
    """Score candidates by their loss on two data sets: what the special model learned, and what must not be lost.

    The loss is the mean cross-entropy of the assistants' tokens, as in the training of an SFTJob. Use conversations
    that no model was trained on."""

    special: DataSource
    general: DataSource
    special_weight: Share = "0.5"
    """Weight of the special loss in the total; the general one has the rest. A decimal in quotes."""
    samples: Annotated[int, whole(1, 100_000)] = 256
    """Take so many conversations from the beginning of each data set."""
    max_length: Annotated[int, whole(16, 2_097_152)] = 4096
    """Longest sequence in tokens; what is longer is cut there."""


class SweepRetain(StrEnum):
    """Which candidates stay when the winner is known."""

    WINNER = "Winner"
    ALL = "All"


def _same_axis(one: str, two: str) -> str:
    return (
        f"{one}.parameter == {two}.parameter && has({one}.model) == has({two}.model)"
        f" && (!has({one}.model) || {one}.model == {two}.model)"
    )


class Sweep(ApiModel):
    """Try all combinations of some parameters, score each, and publish the best as the output."""

    axes: Annotated[tuple[SweepAxis, ...], Field(min_length=1, max_length=_MOST_AXES), ListType()]
    """What to try. A value of an axis replaces that parameter everywhere, also in `layers`."""
    metric: HeldOutLoss
    retain: SweepRetain = SweepRetain.WINNER
    """Winner: a candidate is deleted when it is scored (the output is the winner). All: they stay in `candidates/`."""

    rules = (
        Rule(
            f"self.axes.all(a, self.axes.exists_one(b, {_same_axis('a', 'b')}))",
            "sweep.axes: two axes are for the same parameter of the same model: give all its values in one",
            lambda sweep: len({(axis.parameter, axis.model) for axis in sweep.axes}) == len(sweep.axes),
            field=".axes",
        ),
        Rule(
            " * ".join(f"(size(self.axes) > {each} ? size(self.axes[{each}].values) : 1)" for each in range(_MOST_AXES))
            + f" <= {MOST_CANDIDATES}",
            f"sweep.axes: more than {MOST_CANDIDATES} combinations: give fewer values, or sweep one parameter after "
            "the other",
            lambda sweep: prod(len(axis.values) for axis in sweep.axes) <= MOST_CANDIDATES,
            field=".axes",
        ),
    )
