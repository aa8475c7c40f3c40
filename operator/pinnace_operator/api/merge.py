"""MergeJob: fuse models in parameter space."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from enum import StrEnum
from math import ceil
from typing import Annotated, Literal

from pydantic import Field

from pinnace_operator.api.base import ApiModel, ListType, Rule
from pinnace_operator.api.fields import DecimalString, Image, Label, Quantity, decimal_between, quantity_value, whole
from pinnace_operator.api.job import JobSpec
from pinnace_operator.api.merge_status import MergeJobStatus
from pinnace_operator.api.mergemethods import PARAMETERS, WITHOUT_BASE, MergeMethod, Parameter, Share, Signed
from pinnace_operator.api.mergesweep import Sweep
from pinnace_operator.api.metadata import ObjectMeta, name_rules
from pinnace_operator.api.pod import GPU, Device, PodTemplate, Resources
from pinnace_operator.api.shared import JobKind, ModelSource

Density = Annotated[
    DecimalString,
    decimal_between("0", "1", 'must be a decimal in quotes above 0 and at most 1, such as "0.5"', above_low=True),
]
_SMALLEST_MEMORY = "512Mi"
_LARGEST_SHARD = "64Gi"
_CORES = 2


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

    name: Label
    """What `layers`, `sweep` and the lineage call it."""
    source: ModelSource
    adapter: ModelSource | None = None
    """A LoRA adapter (PEFT layout) that is merged into `source` on the way. One as `source` goes onto the base."""
    weight: Signed | None = None
    """How much of it: a decimal in quotes, w in the formulas."""
    density: Density | None = None
    """Share of its task vector to keep (ties, dare, della, breadcrumbs); 1, everything, when it is absent."""
    gamma: Share | None = None
    """breadcrumbs: share of the largest changes to drop as outliers; 0.01 when it is absent."""
    epsilon: Share | None = None
    """della: half the span of keep probabilities around `density`; 0.15 when it is absent."""


class LayerOverride(ApiModel):
    """Another value of one parameter for some tensors. The first entry that fits a tensor wins."""

    match: Annotated[str, Field(min_length=1, max_length=253)] = "*"
    """Part of the tensor's name, such as `mlp`; `*` for all. With a `*` inside it is a pattern for the whole name."""
    model: Label | None = None
    """The model it is for (models[].name); all when it is absent."""
    parameter: Parameter
    """The parameter, such as weight, density, lambda or t."""
    values: Annotated[tuple[Signed, ...], Field(min_length=1, max_length=64), ListType()]
    """One value, or several that are spread evenly over the layers, with straight lines in between."""


def _methods(members: tuple[str, ...]) -> str:
    return " || ".join(f"has(self.method.{member})" for member in members)


def _snake(members: tuple[str, ...]) -> set[str]:
    return {name for name, field in MergeMethod.model_fields.items() if field.alias in members}


def _own_parameter(name: str, members: tuple[str, ...]) -> Rule:
    return Rule(
        f"!self.models.exists(m, has(m.{name})) || {_methods(members)}",
        f"models.{name}: the method has no {name} (only {', '.join(members)} have one): remove it",
        lambda spec: spec.method.name in _snake(members) or all(getattr(model, name) is None for model in spec.models),
        field=".models",
    )


def _number_of_models(member: str, cel: str, message: str, check: Callable[[int], bool]) -> Rule:
    return Rule(
        f"!has(self.method.{member}) || size(self.models) {cel}",
        f"models: method {member} takes {message}: add or remove some",
        lambda spec: spec.method.name not in _snake((member,)) or check(len(spec.models)),
        field=".models",
    )


def _named(labels: Callable[[MergeSpec], Iterator[str | None]]) -> Callable[[MergeSpec], bool]:
    return lambda spec: all(each is None or each in spec.model_names for each in labels(spec))


_KNOWN_MODEL = "!has({0}.model) || self.models.exists(m, m.name == {0}.model)"


class MergeSpec(ApiModel):
    """Fuse models in parameter space: everything that decides the numbers of the result."""

    method: MergeMethod
    base: ModelSource | None = None
    """The model that task vectors start from, and whose layout, tokenizer and configuration the output has.

    Methods without task vectors (linear, karcher) work without it; the first model then gives layout and tokenizer."""
    models: Annotated[tuple[MergeModel, ...], Field(min_length=1, max_length=16), ListType("map", ("name",))]
    """What is merged. For methods with task vectors, the base is not one of them."""
    layers: Annotated[tuple[LayerOverride, ...], Field(max_length=64), ListType()] = ()
    """Other values for some tensors, such as a gradient over the layers. The first entry that fits wins."""
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
    """Bytes that the merging process may take, however large the models are; at least 512Mi."""
    shard_size: Quantity = "4Gi"
    """Bytes of weights in one output file at most, up to 64Gi; a tensor is never divided."""
    seed: Annotated[int, whole(0, 2**31 - 1)] = 42
    """Seed of dare and della."""
    sweep: Sweep | None = None
    """Try several values and publish the best; absent: one merge."""

    rules = (
        *(_own_parameter(name, members) for name, members in PARAMETERS.items()),
        Rule(
            f"has(self.base) || {_methods(WITHOUT_BASE)}",
            "base: the method starts from a base: add base, the model that the others were trained from",
            lambda spec: spec.base is not None or spec.method.name in _snake(WITHOUT_BASE),
        ),
        _number_of_models("slerp", "== 1", "base and exactly one model", lambda count: count == 1),
        _number_of_models("nuslerp", "== 2", "exactly two models", lambda count: count == 2),
        _number_of_models("modelStock", ">= 2", "at least two models", lambda count: count >= 2),
        Rule(
            f"!has(self.layers) || self.layers.all(l, {_KNOWN_MODEL.format('l')})",
            "layers.model: there is no model of that name in models: correct it, or remove it to mean all",
            _named(lambda spec: (layer.model for layer in spec.layers)),
            field=".layers",
        ),
        Rule(
            f"!has(self.sweep) || self.sweep.axes.all(a, {_KNOWN_MODEL.format('a')})",
            "sweep.axes.model: there is no model of that name in models: correct it, or remove it to mean all",
            _named(lambda spec: (axis.model for axis in spec.sweep.axes) if spec.sweep else iter(())),
        ),
        Rule(
            f"!quantity('{_SMALLEST_MEMORY}').isGreaterThan(quantity(string(self.memoryLimit)))",
            f"memoryLimit: the process itself takes most of that: give at least {_SMALLEST_MEMORY}",
            lambda spec: spec.memory_bytes >= quantity_value(_SMALLEST_MEMORY),
            field=".memoryLimit",
        ),
        Rule(
            f"!quantity(string(self.shardSize)).isGreaterThan(quantity('{_LARGEST_SHARD}'))"
            " && quantity(string(self.shardSize)).isGreaterThan(quantity('0'))",
            f"shardSize: must be more than 0 and at most {_LARGEST_SHARD}, which S3 takes in one upload",
            lambda spec: 0 < spec.shard_bytes <= quantity_value(_LARGEST_SHARD),
            field=".shardSize",
        ),
    )

    @property
    def model_names(self) -> tuple[str, ...]:
        """The name of each model."""
        return tuple(model.name for model in self.models)

    @property
    def memory_bytes(self) -> int:
        return int(quantity_value(self.memory_limit))

    @property
    def shard_bytes(self) -> int:
        return int(quantity_value(self.shard_size))

    @property
    def sources(self) -> dict[str, ModelSource]:
        """Every model that is read, by its field in the spec: `base`, `models.agent`, `models.agent.adapter`."""
        found = {"base": self.base} if self.base else {}
        for model in self.models:
            found[f"models.{model.name}"] = model.source
            if model.adapter:
                found[f"models.{model.name}.adapter"] = model.adapter
        return found


class MergeWorker(ApiModel):
    """The pod that merges, and scores the candidates of a sweep."""

    device: Device = Device.CPU
    """What to compute on: cpu or cuda. Merging is bound by storage; a GPU pays for the scores of a sweep."""
    resources: Resources = Field(default_factory=Resources)
    """Compute resources. What is absent: 2 CPUs are requested, and memory is memoryLimit and a quarter."""
    image: Image | None = None
    """Another trainer image than the operator's default for the device."""
    pod_template: PodTemplate = Field(default_factory=PodTemplate)

    rules = (
        Rule(
            "(self.device == 'cuda') == ((has(self.resources.limits) && 'nvidia.com/gpu' in self.resources.limits)"
            " || (has(self.podTemplate.resourceClaims) && size(self.podTemplate.resourceClaims) > 0))",
            "worker.resources.limits: device cuda needs nvidia.com/gpu: 1 there (or podTemplate.resourceClaims), and "
            "device cpu must have none: set both alike",
            lambda role: (
                (role.device is Device.CUDA)
                == (GPU in (role.resources.limits or {}) or bool(role.pod_template.resource_claims))
            ),
            field=".resources",
        ),
    )

    @property
    def cores(self) -> int:
        """Threads that compute: the CPU limit, else what is requested."""
        asked = {**(self.resources.requests or {}), **(self.resources.limits or {})}.get("cpu", _CORES)
        return max(1, ceil(quantity_value(asked)))


_MEMORY = "(has(self.worker.resources.limits) && 'memory' in self.worker.resources.limits)"


def _memory_limit(spec: MergeJobSpec) -> int | None:
    limit = (spec.worker.resources.limits or {}).get("memory")
    return None if limit is None else int(quantity_value(limit))


class MergeJobSpec(MergeSpec, JobSpec):
    """What to merge, how, and where. Only `method`, `models` and, for most methods, `base` are needed."""

    worker: MergeWorker = Field(default_factory=MergeWorker)

    rules = (
        *MergeSpec.rules,
        Rule(
            f"!{_MEMORY} || !quantity(string(self.memoryLimit)).isGreaterThan("
            "quantity(string(self.worker.resources.limits['memory'])))",
            "worker.resources.limits.memory: it is below memoryLimit: raise it, or lower memoryLimit",
            lambda spec: (_memory_limit(spec) or spec.memory_bytes) >= spec.memory_bytes,
            field=".worker",
        ),
        Rule(
            f"!has(self.sweep) || !has(self.sweep.metric) || {_MEMORY}",
            "worker.resources.limits.memory: a sweep loads each candidate to score it: set it to memoryLimit and the "
            "size of the model in outputDtype",
            lambda spec: not (spec.sweep and spec.sweep.metric) or _memory_limit(spec) is not None,
            field=".worker",
        ),
    )


_LONGEST_OF_SUITE = 43
_NUMBER = len("-000")


def _has_suites(job: MergeJob) -> bool:
    return bool(job.spec.sweep and job.spec.sweep.eval_suite_template)


_SELF = "(has({0}.from) && {0}.from.kind == 'MergeJob' && {0}.from.name == self.metadata.name)"


def _from_itself(job: MergeJob) -> bool:
    references = [source.from_ for source in job.spec.sources.values() if source.from_]
    return any(each.key == (str(JobKind.MERGE_JOB), job.metadata.name) for each in references)


class MergeJob(ApiModel):
    """Fuses models straight from S3 to S3, in bounded memory, and can search for the best coefficients.

    A small example: `spec: {method: {taskArithmetic: {}}, base: {uri: s3://pinnace/models/tiny}, models: [{name: agent,
    source: {from: {kind: SFTJob, name: warm-up}}, weight: "0.7"}]}`.
    """

    api_version: Literal["pinnace.dev/v1alpha1"] = "pinnace.dev/v1alpha1"
    kind: Literal["MergeJob"] = "MergeJob"
    metadata: ObjectMeta
    spec: MergeJobSpec
    status: MergeJobStatus = Field(default_factory=MergeJobStatus)

    rules = (
        # Its longest pod is that of the cleanup.
        *name_rules(longest_pod_suffix="-cleanup-0-0"),
        Rule(
            "!has(self.spec.sweep) || !has(self.spec.sweep.evalSuiteTemplate) || "
            f"size(self.metadata.name) <= {_LONGEST_OF_SUITE - _NUMBER}",
            f"metadata.name: at most {_LONGEST_OF_SUITE - _NUMBER} characters with sweep.evalSuiteTemplate, because "
            "EvalSuites are named after the job: choose a shorter name",
            lambda job: not _has_suites(job) or len(job.metadata.name) <= _LONGEST_OF_SUITE - _NUMBER,
        ),
        Rule(
            f"!(has(self.spec.base) && {_SELF.format('self.spec.base')}) && !self.spec.models.exists(m,"
            f" {_SELF.format('m.source')} || (has(m.adapter) && {_SELF.format('m.adapter')}))",
            "spec: from.name: a job can't start from itself: name another job, or use uri or hub",
            lambda job: not _from_itself(job),
            field=".spec",
        ),
    )
