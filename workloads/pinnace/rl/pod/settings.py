"""From an RLRun's spec to a `RunConfig`: nothing is decided here, only said in the other words."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pinnace_operator.api.rlagent import GradingRule, RLAgent, RLReward
from pinnace_operator.api.rlroles import TrainOffload
from pinnace_operator.api.rlrun import RLRunSpec
from pinnace_operator.api.rlsignal import Clipped, RLLoss, RLSignal, ZeroVariance
from pinnace_operator.api.sft import Precision
from pydantic import ValidationError

from pinnace.outcome import InvalidSpec
from pinnace.rl.config import RunConfig

_BUILTIN = "pinnace.rl.pod.arithmetic"
_GRADERS = {
    GradingRule.EXACT: "exact", GradingRule.EXACT_IGNORING_CASE: "exact_ignoring_case", GradingRule.NUMBER: "number",
    GradingRule.GAIA: "gaia",
}  # fmt: skip
_GATEWAY = "pinnace.rl.pod.gateway:tools"
_LOSSES = {
    "grpo": "grpo", "dr_grpo": "dr-grpo", "gspo": "gspo", "cispo": "cispo", "minirl": "minirl",
    "decoupled_ppo": "decoupled-ppo",
}  # fmt: skip
_CORRECTIONS = {
    "icepop": "icepop", "tis": "tis", "geometric_mask": "geometric-mask", "off_policy_mask": "opsm",
}  # fmt: skip


@dataclass(frozen=True)
class Place:
    """Where a pod's files are, and the other processes.

    Attributes:
        storage: `s3://…` of the run's folder.
        folder: the pod's own disk.
    """

    storage: str
    coordinator: str
    proxy: str
    servers: tuple[str, ...]
    mirrors: tuple[str, ...]
    folder: Path = Path("/scratch")

    @classmethod
    def from_env(cls, storage: str, environ: Mapping[str, str] = os.environ) -> Place:
        """As docs/contracts.md §9 names the variables. Raises `InvalidSpec`."""
        try:
            return cls(
                storage=storage,
                coordinator=environ["PINNACE_RL_COORDINATOR"],
                proxy=environ["PINNACE_RL_PROXY"],
                servers=tuple(environ["PINNACE_RL_SERVERS"].split(",")),
                mirrors=tuple(environ["PINNACE_RL_MIRRORS"].split(",")),
                folder=Path(environ.get("PINNACE_SCRATCH", "/scratch")),
            )
        except KeyError as missing:
            raise InvalidSpec(
                f"{missing.args[0]} is not set: this command runs in a pod that the operator made"
            ) from None

    @property
    def model(self) -> Path:
        return self.folder / "model"

    @property
    def tasks(self) -> Path:
        return self.folder / "tasks.jsonl"

    @property
    def config(self) -> Path:
        return self.folder / "run.json"


def run_config(spec: RLRunSpec, place: Place) -> RunConfig:
    """What every process of the run reads. Raises `InvalidSpec`."""
    try:
        return RunConfig.model_validate(_document(spec, place))
    except ValidationError as error:
        problems = (f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors(include_url=False))
        raise InvalidSpec("; ".join(problems)) from None


def _document(spec: RLRunSpec, place: Place) -> dict[str, Any]:
    optimizer, trainer, schedule = spec.optimizer, spec.trainer, spec.schedule
    return {
        "model": place.model,
        "folder": place.folder / "run",
        "storage": place.storage,
        "seed": spec.seed,
        "steps": spec.steps,
        "checkpoint_every": spec.checkpoint.every_steps,
        "keep_checkpoints": spec.checkpoint.keep_last,
        "tasks": place.tasks,
        "agent": _agent(spec.agent, _tools(spec)),
        "reward": _reward(spec.reward),
        "schedule": {
            "groups_per_step": schedule.groups_per_step,
            "group_size": schedule.group_size,
            "max_staleness": schedule.max_staleness,
            "concurrency": schedule.concurrency,
            "attempts": schedule.attempts,
        },
        "denoising": _denoising(spec.signal, spec.seed),
        "signal": {
            "advantage": _words(spec.signal.advantage),
            "normalisation": _words(spec.signal.normalisation),
            "constant_tokens": spec.signal.constant_tokens or 1,
        },
        "loss": _loss(spec.loss),
        "optimizer": {
            "learning_rate": float(optimizer.learning_rate),
            "weight_decay": float(optimizer.weight_decay),
            "max_grad_norm": float(optimizer.max_grad_norm),
            "warmup_steps": optimizer.warmup_steps,
        },
        "engine": {
            "kind": trainer.engine.lower(),
            "device": trainer.device,
            "token_budget": trainer.token_budget or spec.context_tokens,
            "zero_stage": trainer.zero_stage,
            "offload_optimizer": trainer.offload is TrainOffload.OPTIMIZER,
            "bf16": trainer.precision is Precision.BF16,
            "gradient_checkpointing": trainer.gradient_checkpointing,
        },
        "context_tokens": spec.context_tokens,
        "temperature": float(spec.temperature),
        "max_tokens": spec.turn_tokens,
        "probe": {"tolerance": float(spec.rollout.logprob_tolerance)},
        "servers": [
            {"kind": spec.rollout.engine, "url": url, "mirror": mirror}
            for url, mirror in zip(place.servers, place.mirrors, strict=True)
        ],
        "coordinator": place.coordinator,
        "proxy": place.proxy,
        "samplers": spec.sampler.replicas,
        "trainer_processes": trainer.processes,
    }


def _reward(reward: RLReward) -> str | None:
    """None: the agent's harness posts it."""
    if reward.builtin:
        return f"{_BUILTIN}:reward"
    if reward.grader:
        rule = reward.grader.rule
        return f"pinnace.evals.rewards:{_GRADERS[rule] if rule else 'judged'}"
    return reward.function


def _agent(agent: RLAgent, tools: str | None) -> dict[str, Any]:
    if agent.loop is None:
        return {"function": agent.function, "command": agent.command, "seconds": agent.attempt_seconds}
    loop = agent.loop
    return {
        "loop": {
            "policy": _words(loop.policy),
            "dialect": loop.dialect.lower(),
            "system": loop.system,
            "limits": {"turns": loop.turns, "wall_seconds": agent.attempt_seconds},
            "tools": tools,
        },
        "seconds": agent.attempt_seconds,
    }


def _tools(spec: RLRunSpec) -> str | None:
    if spec.tool_sandbox:
        return _GATEWAY
    return f"{_BUILTIN}:tools" if spec.tasks.builtin else None


def _denoising(signal: RLSignal, seed: int) -> dict[str, Any]:
    return {
        "long_failures": _words(signal.long_failures),
        "long_failures_reserved": signal.long_failures_reserved,
        "long_failures_weight": float(signal.long_failures_weight),
        "short_success_turns": signal.short_success_turns,
        "fault_penalty": float(signal.fault_penalty),
        "refill_zero_variance": signal.zero_variance is ZeroVariance.REFILL,
        "shape_by": _words(signal.shape_by),
        "shape_scale": float(signal.shape_scale),
        "seed": seed,
    }


def _loss(loss: RLLoss) -> dict[str, Any]:
    name = next((name for name in _LOSSES if getattr(loss, name) is not None), "grpo")
    corrections = {
        known: _numbers(getattr(loss.corrections, field))
        for field, known in _CORRECTIONS.items()
        if getattr(loss.corrections, field) is not None
    }
    return {"name": _LOSSES[name], "parameters": _numbers(getattr(loss, name) or Clipped()), "corrections": corrections}


def _numbers(part: Any) -> dict[str, float]:
    return {name: float(value) for name, value in part.model_dump(by_alias=False).items()}


def _words(value: str) -> str:
    """`LeaveOneOut` of the API is `leave-one-out` in the library."""
    return "".join(f"-{letter.lower()}" if letter.isupper() else letter for letter in value).lstrip("-")
