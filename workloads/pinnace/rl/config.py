"""What a run is: one document that every process of it reads. No torch; an unknown key is an error."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import BaseModel, Field, ValidationError, model_validator

from pinnace.agent import Limits
from pinnace.outcome import InvalidData, InvalidSpec

from .rollout import SamplingParameters
from .scheduler import Schedule
from .signal.denoise import Denoising
from .signal.samples import Signal
from .types import SETTINGS

Task = Mapping[str, Any]


class _Part(BaseModel):
    model_config = SETTINGS


class LoopAgent(_Part):
    """`pinnace.agent`. `tools`: `module:function` of a task that gives an async context manager of `Tools`."""

    policy: str = "none"
    dialect: str = "native"
    rule: str = "tag|final"
    system: str = ""
    limits: Limits = Field(default_factory=Limits)
    tools: str | None = None


class AgentConfig(_Part):
    """Who plays, exactly one of three.

    Attributes:
        function: `module:name`, called with the task, `base_url` and `api_key`; sync or async.
        command: a program; it finds `OPENAI_BASE_URL`, `OPENAI_API_KEY` and the task (`PINNACE_TASK`, JSON) in its
            environment, and what it prints last is the answer.
        loop: our own agent.
        seconds: what one attempt may take.
    """

    function: str | None = None
    command: tuple[str, ...] | None = None
    loop: LoopAgent | None = None
    seconds: float = Field(600, gt=0)

    @model_validator(mode="after")
    def _one(self) -> Self:
        if sum(given is not None for given in (self.function, self.command, self.loop)) != 1:
            raise ValueError("give exactly one of function, command and loop")
        return self


class ServerConfig(_Part):
    """A rollout server. `mirror` is the address of the process beside it that fetches weights from S3 to its disk."""

    kind: Literal["reference", "sglang", "vllm"] = "reference"
    url: str
    mirror: str | None = None


class OptimizerConfig(_Part):
    """AdamW; `warmup_steps` raises the rate linearly from 0."""

    learning_rate: float = Field(1e-6, gt=0)
    weight_decay: float = 0.0
    beta1: float = 0.9
    beta2: float = 0.999
    max_grad_norm: float = Field(1.0, gt=0)
    warmup_steps: int = Field(0, ge=0)


class EngineConfig(_Part):
    """How it is trained. `token_budget`: most tokens of a micro-batch."""

    kind: Literal["torch", "deepspeed"] = "torch"
    device: Literal["cpu", "cuda"] = "cpu"
    token_budget: int = Field(8192, ge=2)
    zero_stage: Literal[0, 1, 2, 3] = 2
    offload_optimizer: bool = False
    bf16: bool = False
    gradient_checkpointing: bool = True


class LossConfig(_Part):
    """`name` of `pinnace.rl.loss.LOSSES`, then factors of `CORRECTIONS` in order, each with its parameters."""

    name: str = "grpo"
    parameters: dict[str, float] = Field(default_factory=dict)
    corrections: dict[str, dict[str, float]] = Field(default_factory=dict)


class ProbeConfig(_Part):
    """After each update a server's log-probs of a fixed prompt must be the trainer's, to so many nats."""

    prompt: str = "The quick brown fox"
    draws: int = Field(4, ge=1)
    tolerance: float = Field(0.05, gt=0)


class RunConfig(_Part):
    """One run.

    Attributes:
        model: Hugging Face folder that training starts from.
        folder: of the run: trajectories, metrics, and, unless they are in S3, weights and checkpoints.
        storage: `s3://…` for weights and checkpoints.
        reward: `module:name`, called with the task and the answer; None: the agent's harness posts it to `/reward`.
        keep_checkpoints: how many are kept.
        lease_seconds: how long a sampler may be silent before its attempts are given to another.
        patience_seconds: how long a process goes on asking one that does not answer.
    """

    model: Path
    folder: Path
    storage: str | None = None
    seed: int = 0
    steps: int = Field(ge=1)
    checkpoint_every: int = Field(10, ge=1)
    keep_checkpoints: int = Field(2, ge=1)
    tasks: Path
    agent: AgentConfig
    reward: str | None = None
    schedule: Schedule
    denoising: Denoising = Field(default_factory=Denoising)
    signal: Signal = Field(default_factory=Signal)
    loss: LossConfig = Field(default_factory=LossConfig)
    optimizer: OptimizerConfig = Field(default_factory=OptimizerConfig)
    engine: EngineConfig = Field(default_factory=EngineConfig)
    context_tokens: int = Field(ge=2)
    temperature: float = Field(1.0, gt=0)
    max_tokens: int = Field(4096, ge=1)
    probe: ProbeConfig = Field(default_factory=ProbeConfig)
    servers: tuple[ServerConfig, ...] = Field(min_length=1)
    coordinator: str = "http://127.0.0.1:8700"
    proxy: str = "http://127.0.0.1:8701"
    samplers: int = Field(1, ge=1)
    trainer_processes: int = Field(1, ge=1)
    lease_seconds: float = Field(30, gt=0)
    patience_seconds: float = Field(600, gt=0)

    @classmethod
    def read(cls, path: Path) -> Self:
        """From JSON or YAML. Raises `InvalidSpec` naming every bad field."""
        try:
            return cls.model_validate(yaml.safe_load(path.read_text()))
        except ValidationError as error:
            problems = (f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors(include_url=False))
            raise InvalidSpec(f"{path.name}: {'; '.join(problems)}") from None
        except (OSError, yaml.YAMLError) as error:
            raise InvalidSpec(f"{path}: {error}") from None

    @property
    def sampling(self) -> SamplingParameters:
        return SamplingParameters(temperature=self.temperature, max_tokens=self.max_tokens)

    def check(self) -> None:
        """What can be known before anything expensive starts. Raises `InvalidSpec` or `InvalidData`."""
        try:
            room = json.loads((self.model / "config.json").read_text()).get("max_position_embeddings")
        except (OSError, ValueError) as error:
            raise InvalidSpec(f"model: {error}: give a Hugging Face model folder") from None
        if room is not None and room < self.context_tokens:
            raise InvalidSpec(f"contextTokens is {self.context_tokens}, the model has {room}: lower contextTokens")
        if self.engine.token_budget < self.context_tokens:
            raise InvalidSpec(
                f"engine.tokenBudget {self.engine.token_budget} is below contextTokens {self.context_tokens}: a sample "
                "as long as the context would fit no micro-batch; raise it"
            )
        if self.engine.kind == "torch" and self.trainer_processes > 1:
            raise InvalidSpec("engine.kind torch has one process: set trainerProcesses to 1, or kind to deepspeed")
        _ = self.read_tasks()

    def read_tasks(self) -> list[Task]:
        """One JSON object a line, with an `id` of its own. Raises `InvalidData` naming the line."""
        try:
            tasks: list[Task] = list(_objects(self.tasks))
        except OSError as error:
            raise InvalidData(f"tasks: {error}") from None
        if not tasks:
            raise InvalidData(f"{self.tasks} has no tasks")
        seen = set[str]()
        for number, task in enumerate(tasks, 1):
            if not isinstance(task.get("id"), str) or task["id"] in seen:
                raise InvalidData(f"{self.tasks}:{number}: a task needs an `id`, a text of its own")
            seen.add(task["id"])
        return tasks


def _objects(path: Path) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(path.read_text().splitlines(), 1):
        try:
            task = json.loads(line)
        except ValueError as error:
            raise InvalidData(f"{path}:{number}: no JSON: {error}") from None
        if not isinstance(task, dict):
            raise InvalidData(f"{path}:{number}: a task is a JSON object")
        yield task
