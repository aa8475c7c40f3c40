"""SFTJob: fine-tune a model on conversations."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from pinnace_operator.api.base import ApiModel, ListType, Rule
from pinnace_operator.api.device import all_gpus_used, gpus_with_cuda, no_gpus_on_a_cpu
from pinnace_operator.api.fields import DecimalString, Image, decimal_between, whole
from pinnace_operator.api.job import JobSpec
from pinnace_operator.api.metadata import ObjectMeta, name_rules
from pinnace_operator.api.pod import Device, PodTemplate, Resources
from pinnace_operator.api.shared import (
    ConfigMapSource,
    DataSource,
    JobKind,
    ModelSource,
    Tracking,
)
from pinnace_operator.api.status import JobStatus


class LossOn(StrEnum):
    """Which turns of the assistant count in the loss."""

    ALL_TURNS = "AllTurns"
    LAST_TURN = "LastTurn"


class Overlong(StrEnum):
    """What to do with conversations longer than training.maxLength."""

    SPLIT = "Split"
    SKIP = "Skip"
    FAIL = "Fail"


class Schedule(StrEnum):
    """How the learning rate goes after the warm-up."""

    COSINE = "Cosine"
    LINEAR = "Linear"
    CONSTANT = "Constant"


class Precision(StrEnum):
    """Number format of the computation."""

    BF16 = "bf16"
    FP32 = "fp32"


class Offload(StrEnum):
    """What DeepSpeed keeps in the CPU's memory instead of the device's."""

    NONE = "None"
    OPTIMIZER = "Optimizer"
    OPTIMIZER_AND_PARAMETERS = "OptimizerAndParameters"


class SFTData(ApiModel):
    """The conversations to learn from. All are checked before training starts; nothing is dropped silently."""

    train: DataSource
    eval: DataSource | None = None
    """Held-out conversations for the evaluation loss; same forms as `train`."""
    eval_percent: Annotated[int, whole(0, 50)] = 0
    """Percent of `train` to hold out for the evaluation loss when there is no `eval`."""
    loss_on: LossOn = LossOn.ALL_TURNS
    """Learn all turns of the assistant (AllTurns) or only the last one (LastTurn). Other roles' tokens never count."""
    overlong: Overlong = Overlong.SPLIT
    """Conversations above training.maxLength: Split at turn borders, Skip (counted and reported), or Fail the job."""
    chat_template: ConfigMapSource | None = None
    """A Jinja chat template to use instead of the model's own."""

    rules = (
        Rule(
            "!has(self.eval) || self.evalPercent == 0",
            "data.evalPercent: there is already data.eval to evaluate on: remove evalPercent or eval",
            lambda data: data.eval is None or data.eval_percent == 0,
            field=".evalPercent",
        ),
    )


class Training(ApiModel):
    """How to train. The defaults are the recipe for a 4B model; set `maxLength` and `globalBatchSize` to your data."""

    epochs: Annotated[int, whole(1, 1000)] = 3
    """Passes over the data. `maxSteps` wins when it is set."""
    max_steps: Annotated[int, whole(1, 100_000_000)] | None = None
    """Stop after this many optimizer steps, whatever `epochs` says."""
    global_batch_size: Annotated[int, whole(1, 1_000_000)] = 4
    """Sequences in one optimizer step, over all processes.

    A multiple of microBatchSize x (processes / sequenceParallel).
    The quotient is the number of gradient accumulation steps."""
    micro_batch_size: Annotated[int, whole(1, 4096)] = 1
    """Sequences that one process handles at once. Lower it when memory is short."""
    max_length: Annotated[int, whole(16, 2_097_152)] = 4096
    """Longest sequence in tokens."""
    learning_rate: Annotated[
        DecimalString,
        decimal_between("0", "1", 'must be a decimal in quotes above 0 and at most 1, such as "2e-5"', above_low=True),
    ] = "2e-5"
    """Highest learning rate, a decimal in quotes."""
    schedule: Schedule = Schedule.COSINE
    """Cosine or Linear fall to zero after the warm-up; Constant stays."""
    warmup_percent: Annotated[int, whole(0, 100)] = 3
    """Percent of all steps in which the learning rate rises from zero."""
    weight_decay: Annotated[
        DecimalString, decimal_between("0", "1", 'must be a decimal in quotes from 0 to 1, such as "0.01"')
    ] = "0"
    """Weight decay of AdamW, a decimal in quotes."""
    max_grad_norm: Annotated[
        DecimalString,
        decimal_between("0", "1000", 'must be a decimal in quotes from 0 (no clipping) to 1000, such as "1.0"'),
    ] = "1.0"
    """Gradients are scaled down to this norm; \"0\" doesn't clip. A decimal in quotes."""
    precision: Precision = Precision.BF16
    """bf16, or fp32 where exactness matters more than speed and memory."""
    packing: bool = False
    """Put several short conversations into one sequence. They don't see each other; fewer tokens are padding."""
    gradient_checkpointing: bool = True
    """Compute activations again in the backward pass instead of keeping them: less memory, about a third more time."""
    seed: Annotated[int, whole(0, 2**31 - 1)] = 42
    """Seed of the data's order and of everything random."""
    log_every_steps: Annotated[int, whole(1, 1_000_000)] = 1
    """Report metrics after every so many steps."""
    eval_every_steps: Annotated[int, whole(0, 100_000_000)] = 0
    """Compute the held-out loss after every so many steps; 0: at the end only."""


class DeepSpeed(ApiModel):
    """How the model is spread over the processes."""

    zero_stage: Annotated[int, whole(0, 3)] = 2
    """What ZeRO shards: 0 nothing, 1 the optimizer's state, 2 gradients too, 3 parameters too."""
    offload: Offload = Offload.NONE
    """Move state to the CPU's memory: None, Optimizer (zeroStage 2 or 3), OptimizerAndParameters (zeroStage 3)."""
    sequence_parallel: Annotated[int, whole(1, 64)] = 1
    """Processes that share one long sequence. It must divide all processes and training.maxLength."""

    rules = (
        Rule(
            "self.offload == 'None' || self.zeroStage >= 2",
            "deepspeed.offload: it needs sharded gradients: set deepspeed.zeroStage to 2 or 3, or offload to None",
            lambda self: self.offload is Offload.NONE or self.zero_stage >= 2,
            field=".offload",
        ),
        Rule(
            "self.offload != 'OptimizerAndParameters' || self.zeroStage == 3",
            "deepspeed.offload: only ZeRO 3 offloads parameters: set deepspeed.zeroStage to 3, or offload to Optimizer",
            lambda self: self.offload is not Offload.OPTIMIZER_AND_PARAMETERS or self.zero_stage == 3,
            field=".offload",
        ),
    )


class Lora(ApiModel):
    """Train small low-rank matrices beside the frozen weights. The output is the whole model with them merged in."""

    rank: Annotated[int, whole(1, 1024)] = 16
    """Rank of the matrices."""
    alpha: Annotated[int, whole(1, 4096)] = 32
    """Their scale is alpha / rank."""
    dropout: Annotated[
        DecimalString,
        decimal_between("0", "1", 'must be a decimal in quotes from 0 to below 1, such as "0.05"', below_high=True),
    ] = "0"
    """Dropout on their input, a decimal in quotes."""
    target_modules: Annotated[
        tuple[Annotated[str, Field(min_length=1, max_length=200)], ...],
        Field(min_length=1, max_length=64),
        ListType("set"),
    ] = ("all-linear",)
    """Names of the modules to adapt, such as `q_proj`; `all-linear`, alone, for all of them."""

    rules = (
        Rule(
            "!('all-linear' in self.targetModules) || size(self.targetModules) == 1",
            "lora.targetModules: all-linear already means all modules: remove the other names or all-linear",
            lambda lora: "all-linear" not in lora.target_modules or len(lora.target_modules) == 1,
            field=".targetModules",
        ),
    )


class Checkpointing(ApiModel):
    """When to take checkpoints and how many to keep in S3. One is also taken when the pods are asked to stop."""

    every_steps: Annotated[int, whole(1, 100_000_000)] = 100
    """Take one after every so many optimizer steps."""
    keep_last: Annotated[int, whole(1, 100)] = 2
    """Keep this many of the newest."""
    keep_best: Annotated[int, whole(0, 100)] = 1
    """Keep this many more with the lowest held-out loss; without held-out data it does nothing."""


class TrainerRole(ApiModel):
    """The pods that train: one a node, with a process for each device."""

    nodes: Annotated[int, whole(1, 256)] = 1
    """How many pods."""
    processes_per_node: Annotated[int, whole(1, 64)] = 1
    """Processes in each pod: with cuda, the number of its GPUs."""
    device: Device
    """What to compute on: cpu or cuda."""
    resources: Resources = Field(default_factory=Resources)
    image: Image | None = None
    """Another trainer image than the operator's default for the device."""
    pod_template: PodTemplate = Field(default_factory=PodTemplate)

    rules = (
        no_gpus_on_a_cpu("trainer"),
        gpus_with_cuda("trainer", "processesPerNode"),
        all_gpus_used("trainer", "processesPerNode", remark=", a process for each GPU"),
    )


_PROCESSES = "(self.trainer.nodes * self.trainer.processesPerNode)"
_TOGETHER = f"(self.training.microBatchSize * ({_PROCESSES} / self.deepspeed.sequenceParallel))"


class SFTJobSpec(JobSpec):
    """What to fine-tune, on what, how, and where. Only `model`, `data` and `trainer.device` are needed."""

    model: ModelSource
    data: SFTData
    training: Training = Field(default_factory=Training)
    deepspeed: DeepSpeed = Field(default_factory=DeepSpeed)
    lora: Lora | None = None
    """Low-rank adaptation; absent: all weights are trained."""
    checkpoint: Checkpointing = Field(default_factory=Checkpointing)
    trainer: TrainerRole
    tracking: Tracking = Field(default_factory=Tracking)

    rules = (
        Rule(
            f"{_PROCESSES} % self.deepspeed.sequenceParallel == 0",
            "deepspeed.sequenceParallel: it must divide trainer.nodes x trainer.processesPerNode: change one of them",
            lambda spec: spec.world_size % spec.deepspeed.sequence_parallel == 0,
            field=".deepspeed",
        ),
        Rule(
            "self.training.maxLength % self.deepspeed.sequenceParallel == 0",
            "training.maxLength: it must be a multiple of deepspeed.sequenceParallel: change one of them",
            lambda spec: spec.training.max_length % spec.deepspeed.sequence_parallel == 0,
            field=".training",
        ),
        Rule(
            f"{_PROCESSES} % self.deepspeed.sequenceParallel != 0 || self.training.globalBatchSize % {_TOGETHER} == 0",
            "training.globalBatchSize: it must be a multiple of microBatchSize x (trainer.nodes x processesPerNode / "
            "deepspeed.sequenceParallel): raise it to such a multiple or lower microBatchSize",
            lambda spec: (
                spec.world_size % spec.deepspeed.sequence_parallel != 0
                or spec.training.global_batch_size % (spec.training.micro_batch_size * spec.data_parallel_size) == 0
            ),
            field=".training",
        ),
        Rule(
            "self.training.evalEverySteps == 0 || has(self.data.eval) || self.data.evalPercent > 0",
            "training.evalEverySteps: there is nothing to evaluate on: set data.eval or data.evalPercent, "
            "or evalEverySteps to 0",
            lambda spec: (
                spec.training.eval_every_steps == 0 or spec.data.eval is not None or spec.data.eval_percent > 0
            ),
            field=".training",
        ),
    )

    @property
    def world_size(self) -> int:
        """Training processes in all pods."""
        return self.trainer.nodes * self.trainer.processes_per_node

    @property
    def data_parallel_size(self) -> int:
        """Groups of processes that handle sequences of their own."""
        return self.world_size // self.deepspeed.sequence_parallel

    @property
    def gradient_accumulation_steps(self) -> int:
        """Forward and backward passes of a process in one optimizer step."""
        return self.training.global_batch_size // (self.training.micro_batch_size * self.data_parallel_size)


class SFTJob(ApiModel):
    """Fine-tunes a model on conversations with TRL and DeepSpeed: checkpoints and the result go to S3.

    A small example: `spec: {model: {uri: s3://pinnace/models/tiny}, data: {train: {builtin: {name: arithmetic-tools}}},
    trainer: {device: cpu}}`.
    """

    api_version: Literal["pinnace.dev/v1alpha1"] = "pinnace.dev/v1alpha1"
    kind: Literal["SFTJob"] = "SFTJob"
    metadata: ObjectMeta
    spec: SFTJobSpec
    status: JobStatus = Field(default_factory=JobStatus)

    rules = (
        *name_rules(longest_pod_suffix="-trainer-0-255"),
        Rule(
            "!has(self.spec.model.from) || self.spec.model.from.kind != 'SFTJob'"
            " || self.spec.model.from.name != self.metadata.name",
            "spec.model.from.name: a job can't start from itself: name another job, or use uri or hub",
            lambda job: (
                job.spec.model.from_ is None
                or job.spec.model.from_.kind is not JobKind.SFT_JOB
                or job.spec.model.from_.name != job.metadata.name
            ),
            field=".spec.model",
        ),
    )
