"""MergeJob's spec: which models, by which method, into what.

Shaped as the resource's API: camelCase in manifests, decimals in quotes, exactly one member of a union.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pinnace_operator.api.base import ApiModel, ListType, Rule
from pinnace_operator.api.fields import DecimalString, Label, Quantity, decimal_between, quantity_value, whole
from pinnace_operator.api.shared import DataSource, ModelSource
from pydantic import Field

from .settings import MergeMethod, Signed

Weight = Signed
Density = Annotated[
    DecimalString,
    decimal_between("0", "1", 'must be a decimal in quotes above 0 and at most 1, such as "0.5"', above_low=True),
]


class Dtype(StrEnum):
    """Number format of stored weights."""

    BF16 = "bf16"
    FP16 = "fp16"
    FP32 = "fp32"


class ComputeDtype(StrEnum):
    """Number format of the computation."""

    FP32 = "fp32"
    FP64 = "fp64"


class TokenizerPolicy(StrEnum):
    """What to do when a model's tokenizer is not the base's."""

    BASE = "Base"
    ALIGN_TO_BASE = "AlignToBase"


class Missing(StrEnum):
    """What to do about a tensor that the base has and a model lacks."""

    REFUSE = "Refuse"
    TAKE_BASE = "TakeBase"


class Extra(StrEnum):
    """What to do about a tensor that a model has and the base lacks."""

    REFUSE = "Refuse"
    IGNORE = "Ignore"


class Fp8(StrEnum):
    """What to do about fp8 weights."""

    REFUSE = "Refuse"
    UPCAST = "Upcast"


class MergeModel(ApiModel):
    """One model that is merged. The parameters that the method does not have must be absent."""

    name: Label | None = None
    """What `layers` calls it; by default `model-0`, `model-1` and so on."""
    source: ModelSource
    adapter: ModelSource | None = None
    """A LoRA adapter (PEFT layout) that is merged into `source` on the way. One as `source` goes onto the base."""
    weight: Weight | None = None
    """How much of it: a decimal in quotes."""
    density: Density | None = None
    """Share of its task vector to keep (ties, dare, della, breadcrumbs); 1, everything, when it is absent."""
    gamma: Annotated[DecimalString, decimal_between("0", "1", "must be a decimal in quotes from 0 to 1")] | None = None
    """breadcrumbs: share of the largest changes to drop as outliers."""
    epsilon: Annotated[DecimalString, decimal_between("0", "1", "must be a decimal in quotes from 0 to 1")] | None = (
        None
    )
    """della: half the span of keep probabilities around `density`."""


class LayerOverride(ApiModel):
    """Another value of one parameter for some tensors. The first entry that fits a tensor wins."""

    match: Annotated[str, Field(min_length=1, max_length=253)] = "*"
    """Part of the tensor's name, such as `mlp`; `*` for all. With a `*` inside it is a pattern for the whole name."""
    model: Label | None = None
    """The model it is for (models[].name); all when it is absent."""
    parameter: Annotated[str, Field(min_length=1, max_length=32)]
    """The parameter, such as weight, density, lambda or t."""
    values: Annotated[tuple[Weight, ...], Field(min_length=1, max_length=512), ListType()]
    """One value, or several that are spread evenly over the layers, with straight lines in between."""


class SweepAxis(ApiModel):
    """One parameter of a sweep and the values to try."""

    parameter: Annotated[str, Field(min_length=1, max_length=32)]
    """The parameter, such as weight, density, lambda or t."""
    model: Label | None = None
    """The model it is for; all when it is absent."""
    values: Annotated[tuple[Weight, ...], Field(min_length=1, max_length=64), ListType()]


class HeldOutLoss(ApiModel):
    """Score candidates by the loss on two data sets: what the special model learned, and what it must not forget."""

    special: DataSource
    general: DataSource
    special_weight: Annotated[DecimalString, decimal_between("0", "1", "must be a decimal in quotes from 0 to 1")] = (
        "0.5"
    )
    """Weight of the special score in the total; the general one has the rest."""


class SweepRetain(StrEnum):
    """Which candidates stay when the winner is known."""

    WINNER = "Winner"
    ALL = "All"


class Sweep(ApiModel):
    """Try all combinations of some parameters and keep the best."""

    axes: Annotated[tuple[SweepAxis, ...], Field(min_length=1, max_length=4), ListType()]
    eval_suite_template: Label | None = None
    """An EvalSuite to copy for each candidate."""
    metric: HeldOutLoss | None = None
    retain: SweepRetain = SweepRetain.WINNER
    """Delete the other candidates (Winner), or keep them (All)."""

    rules = (
        Rule(
            "has(self.evalSuiteTemplate) != has(self.metric)",
            "sweep: give exactly one of evalSuiteTemplate and metric",
            lambda sweep: (sweep.eval_suite_template is None) != (sweep.metric is None),
        ),
    )


class MergeSpec(ApiModel):
    """Fuse models in parameter space."""

    method: MergeMethod
    base: ModelSource | None = None
    """The model that task vectors start from, and whose layout, tokenizer and configuration the output has.

    Methods without task vectors (linear, karcher) work without it; the first model then gives layout and tokenizer."""
    models: Annotated[tuple[MergeModel, ...], Field(min_length=1, max_length=32), ListType()]
    layers: Annotated[tuple[LayerOverride, ...], Field(max_length=256), ListType()] = ()
    tokenizer: TokenizerPolicy = TokenizerPolicy.BASE
    """Base: the output has the base's tokenizer, and a model with another one is an error. AlignToBase: the rows of
    embedding and head are matched by token; tokens that a model lacks have the base's row."""
    missing_tensors: Missing = Missing.REFUSE
    """A tensor that the base has and a model lacks: Refuse, or TakeBase (the model has the base's)."""
    extra_tensors: Extra = Extra.REFUSE
    """A tensor that a model has and the base lacks: Refuse, or Ignore."""
    fp8: Fp8 = Fp8.REFUSE
    """Inputs in fp8: Refuse, or Upcast (only where they have no scales)."""
    compute_dtype: ComputeDtype = ComputeDtype.FP32
    """What it is computed in, whatever the inputs are stored in."""
    output_dtype: Dtype | None = None
    """What the output is stored in; each tensor as in the base when it is absent."""
    memory_limit: Quantity = "1Gi"
    """Bytes that the whole process may take."""
    shard_size: Quantity = "4Gi"
    """Bytes of weights in one output file at most; a tensor is never divided."""
    seed: Annotated[int, whole(0, 2**31 - 1)] = 42
    """Seed of dare and della."""
    sweep: Sweep | None = None

    rules = (
        Rule(
            "!has(self.layers) || self.layers.all(l, !has(l.model)"
            " || self.models.exists(m, has(m.name) && m.name == l.model)"
            " || l.model.matches(r'^model-[0-9]+$'))",
            "layers: model must be the name of one of the models",
            lambda spec: all(one.model is None or one.model in spec.model_names for one in spec.layers),
        ),
    )

    @property
    def model_names(self) -> tuple[str, ...]:
        """The name of each model, given or numbered."""
        return tuple(model.name or f"model-{index}" for index, model in enumerate(self.models))

    @property
    def memory_bytes(self) -> int:
        return int(quantity_value(self.memory_limit))

    @property
    def shard_bytes(self) -> int:
        return int(quantity_value(self.shard_size))
