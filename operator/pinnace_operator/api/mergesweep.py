"""The sweep of a MergeJob: what to try, and how to score it."""

from __future__ import annotations

from enum import StrEnum
from itertools import product
from math import prod
from typing import Annotated

from pydantic import Field

from pinnace_operator.api.base import ApiModel, ListType, Rule
from pinnace_operator.api.evalsuite import Evaluation
from pinnace_operator.api.fields import Label, whole
from pinnace_operator.api.merge_status import MOST_CANDIDATES
from pinnace_operator.api.mergemethods import Parameter, Share, Signed
from pinnace_operator.api.shared import DataSource, exactly_one

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


class EvalSuiteTemplate(Evaluation):
    """Score candidates by an EvalSuite each: the one with the highest mean of its benchmarks wins.

    The suites are named after the job and the candidate's number, and have the job's storage, queue and policies."""

    parallel: Annotated[int, whole(1, MOST_CANDIDATES)] = 1
    """Candidates that are evaluated at the same time."""

    rules = (
        *Evaluation.rules,
        Rule(
            "!has(self.engine.external)",
            "evalSuiteTemplate.engine: an external endpoint has a model of its own: serve the candidates with vllm or "
            "sglang",
            lambda template: template.engine.external is None,
            field=".engine",
        ),
    )


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
    metric: HeldOutLoss | None = None
    eval_suite_template: EvalSuiteTemplate | None = None
    retain: SweepRetain = SweepRetain.WINNER
    """Winner: candidates are deleted once the output is the winner, or before. All: they stay in `candidates/`."""

    rules = (
        exactly_one("sweep", "metric", "evalSuiteTemplate"),
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

    @property
    def candidates(self) -> dict[str, tuple[str, ...]]:
        """By candidate's name, the values that it tries: all combinations, in the order of the axes."""
        combinations = product(*(axis.values for axis in self.axes))
        return {f"candidate-{number:03d}": values for number, values in enumerate(combinations)}
