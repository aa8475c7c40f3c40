"""RLRun: what it adds to the life that all jobs share."""

from __future__ import annotations

from typing import Any

from pinnace_operator.api.conditions import Reason
from pinnace_operator.api.rlagent import TaskSource
from pinnace_operator.api.rlrun import RLRun, RLRunSpec
from pinnace_operator.api.rlstatus import RLRunStatus, RolloutStatus
from pinnace_operator.api.status import InputRef
from pinnace_operator.builders import rl, rl_network
from pinnace_operator.builders.identity import ROLE, Identity
from pinnace_operator.builders.jobset import Budget
from pinnace_operator.reconcile import tools, upstream
from pinnace_operator.reconcile.decide import decide
from pinnace_operator.reconcile.job import Job, JobType, Models
from pinnace_operator.reconcile.plan import Observed, OperatorSettings, Plan, Raw, SecretRequest
from pinnace_operator.reconcile.pod_environment import images, variables
from pinnace_operator.reconcile.upstream import Missing, Need

REMEDIES = {
    Reason.DIVERGED: "lower optimizer.learningRate, add loss.corrections, or use trainer.precision fp32, and create "
    "the run again from its latest checkpoint",
    Reason.INVALID_DATA: "correct the tasks that the message names, and create the run again",
    Reason.MODEL_UNUSABLE: "point spec.model at a complete Hugging Face layout with tokenizer and chat template, and "
    "create the run again",
    Reason.OUT_OF_MEMORY: "raise resources.limits.memory of the role that the pod's name says; for the trainer also a "
    "higher zeroStage, offload, or a lower tokenBudget or contextTokens (`pinnace rl plan` tells what fits)",
}
"""What to change in an RLRun; other reasons have one remedy for all kinds."""


def reconcile(resource: Raw, observed: Observed) -> Plan:
    """What to do for an RLRun (as the API server returns it)."""
    return decide(RL, resource, observed)


def references(resource: Raw) -> tuple[tuple[str, str], ...]:
    """(kind, name) of the model's job and of the ToolSandbox."""
    spec = resource.get("spec") or {}
    return (*upstream.references([spec.get("model")]), *tools.references(spec.get("toolSandbox")))


def _parse(resource: Raw) -> RLRunSpec:
    return RLRun.from_manifest({name: value for name, value in resource.items() if name != "status"}).spec


def _lineage(spec: RLRunSpec) -> tuple[InputRef, ...]:
    return (_tasks(spec.tasks),)


def _tasks(source: TaskSource) -> InputRef:
    if source.uri:
        return InputRef(ref=f"tasks: {source.uri}"[:512], uri=source.uri)
    if source.config_map:
        return InputRef(ref=f"tasks: ConfigMap/{source.config_map.name} {source.config_map.key}"[:512])
    builtin = source.builtin
    assert builtin is not None  # noqa: S101 -- the model guarantees exactly one source
    return InputRef(ref=f"tasks: builtin {builtin.name}, {builtin.samples} samples, seed {builtin.seed}")


def _needs(job: Job) -> tuple[Need | Missing, ...]:
    spec: RLRunSpec = job.spec  # type: ignore[assignment]  # of this kind's jobs
    sandbox = spec.tool_sandbox
    return (tools.sandbox(sandbox.name, sandbox.tenant, job.observed.upstreams),) if sandbox else ()


def _build(
    identity: Identity, spec: RLRunSpec, settings: OperatorSettings, models: Models, budget: Budget
) -> dict[str, Any]:
    env = variables(identity, spec, settings, models, budget.first_attempt)
    return rl.run(
        identity, spec, env=env, tools=models.get("toolSandbox"), images=images(settings), budget=budget
    )  # fmt: skip


def _beside(identity: Identity, spec: RLRunSpec, settings: OperatorSettings) -> tuple[dict[str, Any], ...]:
    return rl_network.policies(identity, spec, storage=settings.storage.endpoint, operator=settings.progress_url)


def _secrets(identity: Identity) -> tuple[SecretRequest, ...]:
    return (
        SecretRequest(
            name=rl.secret(identity.name), keys=(rl.KEY,), labels=identity.labels(rl.TRAINER),
            owner_reference=identity.owner_reference(),
        ),
    )  # fmt: skip


def _starting(job: Job) -> str:
    """Which pods are still at their checks and downloads."""
    waits = sorted({str(pod.labels.get(ROLE)) for pod in job.gang if pod.runs_init()})
    return f"Checking the run and fetching its model ({', '.join(waits)})." if waits else ""


def _results(job: Job) -> dict[str, Any]:
    """As last reported, else as it was; of the servers, what their pods say."""
    before: RLRunStatus = job.before  # type: ignore[assignment]  # of this kind's jobs
    spec: RLRunSpec = job.spec  # type: ignore[assignment]  # likewise
    report = job.observed.progress
    told = {each.name: each.value for each in report.metrics} if report else {}
    known = before.rollout.quarantined if before.rollout else None
    servers = [pod for pod in job.gang if pod.labels.get(ROLE) == rl.ROLLOUT]
    return {
        "policy_version": _count(told.get("policy_version"), before.policy_version),
        "reward": told.get("reward", before.reward),
        "staleness": told.get("staleness_mean", before.staleness),
        "rollout": RolloutStatus(
            ready=sum(pod.ready for pod in servers),
            wanted=spec.rollout.server.replicas,
            quarantined=_count(told.get("servers_quarantined"), known),
        ),
    }


def _count(text: str | None, before: int | None) -> int | None:
    """A whole number that a pod reported; the one before where it is none."""
    return int(text) if text is not None and text.isdecimal() and len(text) < 10 else before


RL = JobType(
    role=rl.TRAINER,
    crashed=Reason.TRAINER_FAILED,
    crashes={
        rl.ROLLOUT: Reason.ROLLOUT_FAILED,
        rl.MIRROR: Reason.ROLLOUT_FAILED,
        rl.SAMPLER: Reason.SAMPLER_FAILED,
        rl.COORDINATOR: Reason.COORDINATOR_FAILED,
        rl.PROXY: Reason.COORDINATOR_FAILED,
    },
    parse=_parse,
    nodes=lambda _: 1,
    pod_resources=lambda spec: spec.trainer.resources.to_manifest(),
    sources=lambda spec: {"model": spec.model},
    data=_lineage,
    needs=_needs,
    build=_build,
    beside=_beside,
    secrets=_secrets,
    others=(rl.ROLLOUT, rl.SAMPLER, rl.COORDINATOR, rl.PROXY),
    image=rl.image_of,
    overlay=lambda spec: spec.trainer.pod_template,
    status=RLRunStatus,
    results=_results,
    starting=_starting,
    remedies=REMEDIES,
    peers=True,
)
