"""The pods of an RLRun: what trains, what serves the policy, what plays."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from pinnace_operator.api.base import ApiModel, ListType, Rule
from pinnace_operator.api.device import all_gpus_used, gpus_with_cuda, no_gpus_on_a_cpu, no_parallel_tensors_on_a_cpu
from pinnace_operator.api.fields import DecimalString, Image, decimal_between, whole
from pinnace_operator.api.pod import Device, PodTemplate, Resources
from pinnace_operator.api.sft import Precision
from pinnace_operator.api.shared import exactly_one


class RolloutServer(ApiModel):
    """Pods that serve the policy to the run's own proxy, and take over new weights while they serve."""

    device: Device
    """What to compute on: cpu or cuda."""
    replicas: Annotated[int, whole(1, 64)] = 1
    """Servers. One that is lost, or that writes what the trainer's policy would not, is left out until it is right."""
    tensor_parallel: Annotated[int, whole(1, 64)] = 1
    """GPUs that one server spreads the model over: with cuda, as many as it has."""
    memory_percent: Annotated[int, whole(1, 95)] | None = None
    """Share of the device's memory for weights and cache; absent: the engine's own."""
    args: Annotated[tuple[Annotated[str, Field(max_length=1024)], ...], Field(max_length=64), ListType()] = ()
    """More arguments of the server; they come last."""
    resources: Resources = Field(default_factory=Resources)
    image: Image | None = None
    """Another image than the operator's default for the engine and the device."""
    pod_template: PodTemplate = Field(default_factory=PodTemplate)

    rules = (
        no_gpus_on_a_cpu("rollout"),
        gpus_with_cuda("rollout", "tensorParallel"),
        all_gpus_used("rollout", "tensorParallel"),
        no_parallel_tensors_on_a_cpu("rollout"),
    )


class ReferenceServer(ApiModel):
    """A small server on transformers, for the demo and for models of a few million parameters. It has no GPU path."""

    replicas: Annotated[int, whole(1, 64)] = 1
    """Servers."""
    resources: Resources = Field(default_factory=Resources)
    image: Image | None = None
    """Another image than the operator's rollout-vllm for the CPU, which has all that it needs."""
    pod_template: PodTemplate = Field(default_factory=PodTemplate)


class Rollout(ApiModel):
    """What serves the policy: exactly one of sglang, vllm and reference."""

    sglang: RolloutServer | None = None
    """SGLang."""
    vllm: RolloutServer | None = None
    """VLLM."""
    reference: ReferenceServer | None = None
    logprob_tolerance: Annotated[
        DecimalString,
        decimal_between("0", "10", 'must be a decimal in quotes above 0, such as "0.05"', above_low=True),
    ] = "0.05"
    """Nats by which a server's log-probs of a fixed prompt may differ from the trainer's; a decimal in quotes.

    Checked after each update. Raise it for bf16 on GPUs, whose kernels differ."""

    rules = (exactly_one("rollout", "sglang", "vllm", "reference"),)

    @property
    def server(self) -> RolloutServer | ReferenceServer:
        """The one that is given."""
        return self.sglang or self.vllm or self.reference or ReferenceServer()

    @property
    def engine(self) -> str:
        """Its name."""
        return "sglang" if self.sglang else "vllm" if self.vllm else "reference"


class RLSampler(ApiModel):
    """Pods that run the agent. One that is lost costs the attempts it had under way."""

    replicas: Annotated[int, whole(1, 256)] = 1
    """Samplers; they share schedule.concurrency."""
    resources: Resources = Field(default_factory=Resources)
    image: Image | None = None
    """An image with your agent and reward function; absent: the operator's tools image."""
    pod_template: PodTemplate = Field(default_factory=PodTemplate)


class RLControl(ApiModel):
    """Two pods without a GPU: the coordinator, which keeps the trajectories, and the proxy that agents talk to."""

    resources: Resources = Field(default_factory=Resources)
    """Of each of the two. Trajectories that wait for training lie on the coordinator's disk."""
    pod_template: PodTemplate = Field(default_factory=PodTemplate)


class TrainEngine(StrEnum):
    """What computes gradients."""

    DEEP_SPEED = "DeepSpeed"
    TORCH = "Torch"


class TrainOffload(StrEnum):
    """What is kept in the CPU's memory."""

    NONE = "None"
    OPTIMIZER = "Optimizer"


class RLTrainer(ApiModel):
    """The pod that trains, with a process for each device. When it is lost, it goes on from the newest checkpoint."""

    engine: TrainEngine = TrainEngine.DEEP_SPEED
    """DeepSpeed, or Torch: plain PyTorch in one process, for small models."""
    device: Device
    """What to compute on: cpu or cuda."""
    processes: Annotated[int, whole(1, 64)] = 1
    """Processes: with cuda, the number of its GPUs."""
    zero_stage: Annotated[int, whole(0, 3)] = 2
    """What ZeRO shards: 0 nothing, 1 the optimizer's state, 2 gradients too, 3 parameters too."""
    offload: TrainOffload = TrainOffload.NONE
    """Keep the optimizer's state in the CPU's memory: None or Optimizer."""
    token_budget: Annotated[int, whole(2, 16_777_216)] | None = None
    """The most tokens of a micro-batch; absent: contextTokens. `pinnace rl plan` says what fits."""
    precision: Precision = Precision.BF16
    """bf16, or fp32 where exactness matters more than speed and memory."""
    gradient_checkpointing: bool = True
    """Compute activations again in the backward pass instead of keeping them."""
    resources: Resources = Field(default_factory=Resources)
    image: Image | None = None
    """Another trainer image than the operator's default for the device."""
    pod_template: PodTemplate = Field(default_factory=PodTemplate)

    rules = (
        no_gpus_on_a_cpu("trainer"),
        gpus_with_cuda("trainer", "processes"),
        all_gpus_used("trainer", "processes"),
        Rule(
            "self.engine != 'Torch' || self.processes == 1",
            "trainer.processes: engine Torch has one process: set it to 1, or engine to DeepSpeed",
            lambda trainer: trainer.engine is not TrainEngine.TORCH or trainer.processes == 1,
            field=".processes",
        ),
        Rule(
            "self.offload == 'None' || (self.engine == 'DeepSpeed' && self.zeroStage >= 1)",
            "trainer.offload: only DeepSpeed with zeroStage 1 or more offloads: set both, or offload to None",
            lambda trainer: (
                trainer.offload is TrainOffload.NONE
                or (trainer.engine is TrainEngine.DEEP_SPEED and trainer.zero_stage >= 1)
            ),
            field=".offload",
        ),
    )


class RLOptimizer(ApiModel):
    """AdamW."""

    learning_rate: Annotated[
        DecimalString,
        decimal_between("0", "1", 'must be a decimal in quotes above 0 and at most 1, such as "1e-6"', above_low=True),
    ] = "1e-6"
    """Learning rate, a decimal in quotes."""
    weight_decay: Annotated[
        DecimalString, decimal_between("0", "1", 'must be a decimal in quotes from 0 to 1, such as "0.01"')
    ] = "0"
    """Weight decay, a decimal in quotes."""
    max_grad_norm: Annotated[
        DecimalString,
        decimal_between("0", "1000", 'must be a decimal in quotes above 0, such as "1.0"', above_low=True),
    ] = "1.0"
    """Gradients are scaled down to this norm, a decimal in quotes."""
    warmup_steps: Annotated[int, whole(0, 1_000_000)] = 0
    """Steps in which the learning rate rises from zero."""


class RLCheckpointing(ApiModel):
    """When to take checkpoints and how many to keep in S3. One is also taken when the trainer is asked to stop."""

    every_steps: Annotated[int, whole(1, 100_000_000)] = 10
    """Take one after every so many optimizer steps. Trajectories are kept until one covers them."""
    keep_last: Annotated[int, whole(1, 100)] = 2
    """Keep this many of the newest."""
