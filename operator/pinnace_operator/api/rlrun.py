"""RLRun: train a model by what its agent achieves, with tools, asynchronously."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from pinnace_operator.api.base import ApiModel, Rule
from pinnace_operator.api.evalsuite import ToolSandboxRef
from pinnace_operator.api.fields import DecimalString, decimal_between, whole
from pinnace_operator.api.job import JobSpec
from pinnace_operator.api.metadata import ObjectMeta, name_rules
from pinnace_operator.api.rlagent import RLAgent, RLReward, TaskSource
from pinnace_operator.api.rlroles import RLCheckpointing, RLControl, RLOptimizer, RLSampler, RLTrainer, Rollout
from pinnace_operator.api.rlsignal import RLLoss, RLSchedule, RLSignal
from pinnace_operator.api.rlstatus import RLRunStatus
from pinnace_operator.api.shared import JobKind, ModelSource


class RLRunSpec(JobSpec):
    """What to train, at what, and how. Needed: model, tasks, agent, reward, steps, contextTokens, rollout, trainer."""

    model: ModelSource
    tasks: TaskSource
    agent: RLAgent
    tool_sandbox: ToolSandboxRef | None = None
    """Tools of agent.loop; absent: the built-in task's own, or none."""
    reward: RLReward
    steps: Annotated[int, whole(1, 10_000_000)]
    """Optimizer steps."""
    context_tokens: Annotated[int, whole(16, 16_777_216)]
    """Tokens of an attempt's context, prompt and answers: of servers, agents and the trainer alike."""
    turn_tokens: Annotated[int, whole(1, 1_048_576)] = 4096
    """The most that the model may write in one turn."""
    temperature: Annotated[
        DecimalString,
        decimal_between("0", "10", 'must be a decimal in quotes above 0, such as "1.0"', above_low=True),
    ] = "1.0"
    """Sampling temperature, whatever the agent asks for; a decimal in quotes."""
    seed: Annotated[int, whole(0, 2**31 - 1)] = 0
    """Seed of the tasks' order and of everything random."""
    schedule: RLSchedule = Field(default_factory=RLSchedule)
    signal: RLSignal = Field(default_factory=RLSignal)
    loss: RLLoss = Field(default_factory=RLLoss)
    optimizer: RLOptimizer = Field(default_factory=RLOptimizer)
    rollout: Rollout
    sampler: RLSampler = Field(default_factory=RLSampler)
    control: RLControl = Field(default_factory=RLControl)
    trainer: RLTrainer
    checkpoint: RLCheckpointing = Field(default_factory=RLCheckpointing)

    rules = (
        Rule(
            "!has(self.reward.builtin) || has(self.tasks.builtin)",
            "reward.builtin: only built-in tasks have one: use reward.function or reward.api, or tasks.builtin",
            lambda spec: spec.reward.builtin is None or spec.tasks.builtin is not None,
            field=".reward",
        ),
        Rule(
            "!has(self.reward.api) || !has(self.agent.loop)",
            "reward.api: agent.loop has no harness that could post a reward: use reward.function or reward.builtin",
            lambda spec: spec.reward.api is None or spec.agent.loop is None,
            field=".reward",
        ),
        Rule(
            "!has(self.toolSandbox) || has(self.agent.loop)",
            "toolSandbox: only agent.loop uses it; other agents reach tools themselves: remove it, or use agent.loop",
            lambda spec: spec.tool_sandbox is None or spec.agent.loop is not None,
            field=".toolSandbox",
        ),
        Rule(
            "self.turnTokens < self.contextTokens",
            "turnTokens: it leaves no room for a prompt: set it below contextTokens",
            lambda spec: spec.turn_tokens < spec.context_tokens,
            field=".turnTokens",
        ),
        Rule(
            "!has(self.trainer.tokenBudget) || self.trainer.tokenBudget >= self.contextTokens",
            "trainer.tokenBudget: a sample as long as contextTokens would fit no micro-batch: "
            "raise it to contextTokens or more, or lower contextTokens",
            lambda spec: spec.trainer.token_budget is None or spec.trainer.token_budget >= spec.context_tokens,
            field=".trainer",
        ),
        Rule(
            "self.schedule.concurrency >= self.sampler.replicas",
            "sampler.replicas: there are more samplers than schedule.concurrency has attempts: lower one, or raise the "
            "other",
            lambda spec: spec.schedule.concurrency >= spec.sampler.replicas,
            field=".sampler",
        ),
    )


class RLRun(ApiModel):
    """Trains a model by reinforcement learning: its agent plays tasks, and what went well is made more likely.

    Rollout servers, samplers and the trainer are pods of one gang. Checkpoints and the result go to S3.
    """

    api_version: Literal["pinnace.dev/v1alpha1"] = "pinnace.dev/v1alpha1"
    kind: Literal["RLRun"] = "RLRun"
    metadata: ObjectMeta
    spec: RLRunSpec
    status: RLRunStatus = Field(default_factory=RLRunStatus)

    rules = (
        *name_rules(longest_pod_suffix="-coordinator-0-0"),
        Rule(
            "!has(self.spec.model.from) || self.spec.model.from.kind != 'RLRun'"
            " || self.spec.model.from.name != self.metadata.name",
            "spec.model.from.name: a run can't start from itself: name another job, or use uri or hub",
            lambda run: (
                run.spec.model.from_ is None
                or run.spec.model.from_.kind is not JobKind.RL_RUN
                or run.spec.model.from_.name != run.metadata.name
            ),
            field=".spec.model",
        ),
    )
