"""Condition types and the one closed list of reasons, each with its meaning and, where one is needed, the remedy."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from pinnace_operator.api.base import ApiModel
from pinnace_operator.api.fields import Time, whole


class ConditionType(StrEnum):
    """The condition types of all kinds."""

    READY = "Ready"
    """A ToolSandbox serves calls. Jobs don't have it."""
    QUOTA_RESERVED = "QuotaReserved"
    """Kueue admitted the job, or no queue is involved."""
    PROGRESSING = "Progressing"
    """The job works towards its output. Always present; its reason and message say what happens now, even if False."""
    SUSPENDED = "Suspended"
    """No pods run because the user or the queue wants it so."""
    STALLED = "Stalled"
    """A person must act; the message says how. The job goes on by itself once that is done."""
    COMPLETE = "Complete"
    """The output is durable. Final."""
    FAILED = "Failed"
    """The job ended without output. Final."""


class State(StrEnum):
    """The conditions in one word: Failed, Complete, Suspended or Stalled if True; else Running or Pending."""

    PENDING = "Pending"
    RUNNING = "Running"
    SUSPENDED = "Suspended"
    STALLED = "Stalled"
    COMPLETE = "Complete"
    FAILED = "Failed"


class Reason(StrEnum):
    """Every reason that a condition, a pending job, a failure or a pod's outcome can have."""

    # Waiting
    WAITING_FOR_INPUT = "WaitingForInput"
    QUOTA_PENDING = "QuotaPending"
    UNSCHEDULABLE = "Unschedulable"
    IMAGE_PULL_FAILED = "ImagePullFailed"
    POD_CONFIG_INVALID = "PodConfigInvalid"
    POD_REJECTED = "PodRejected"
    PERMISSION_DENIED = "PermissionDenied"
    CHILD_CONFLICT = "ChildConflict"
    RECONCILE_FAILED = "ReconcileFailed"
    NO_PROGRESS = "NoProgress"
    STORAGE_DEGRADED = "StorageDegraded"
    # Under way
    PENDING = "Pending"
    QUOTA_RESERVED = "QuotaReserved"
    QUEUE_NOT_USED = "QueueNotUsed"
    STARTING = "Starting"
    RUNNING = "Running"
    EVALUATING = "Evaluating"
    CHECKPOINTED = "Checkpointed"
    RESTARTING = "Restarting"
    SUSPENDING = "Suspending"
    SUSPENDED = "Suspended"
    PREEMPTED = "Preempted"
    RESUMED = "Resumed"
    COMPLETED = "Completed"
    DELETING_ARTIFACTS = "DeletingArtifacts"
    # Failed: input and configuration
    INVALID_SPEC = "InvalidSpec"
    INVALID_DATA = "InvalidData"
    INPUT_FAILED = "InputFailed"
    MODEL_UNUSABLE = "ModelUnusable"
    STORAGE_UNAVAILABLE = "StorageUnavailable"
    # Failed: while running
    DIVERGED = "Diverged"
    OUT_OF_MEMORY = "OutOfMemory"
    EVICTED = "Evicted"
    NODE_LOST = "NodeLost"
    RENDEZVOUS_FAILED = "RendezvousFailed"
    TRAINER_FAILED = "TrainerFailed"
    WORKER_FAILED = "WorkerFailed"
    ROLLOUT_FAILED = "RolloutFailed"
    SAMPLER_FAILED = "SamplerFailed"
    COORDINATOR_FAILED = "CoordinatorFailed"
    SHARD_FAILED = "ShardFailed"
    JUDGE_UNAVAILABLE = "JudgeUnavailable"
    OUTPUT_MISSING = "OutputMissing"
    BACKOFF_LIMIT_EXCEEDED = "BackoffLimitExceeded"
    DEADLINE_EXCEEDED = "DeadlineExceeded"
    ARTIFACT_DELETION_FAILED = "ArtifactDeletionFailed"
    # ToolSandbox
    AVAILABLE = "Available"
    DEGRADED = "Degraded"
    SCALING = "Scaling"
    DRAINING = "Draining"
    UNAVAILABLE = "Unavailable"
    AT_ZERO = "AtZero"
    CRASH_LOOP = "CrashLoop"
    CONTRACT_FAILED = "ContractFailed"
    GATEWAY_SILENT = "GatewaySilent"


@dataclass(frozen=True)
class ReasonDoc:
    """What a reason means to the user; `remedy` is set where a person may have to act."""

    meaning: str
    remedy: str | None = None


REASONS: dict[Reason, ReasonDoc] = {
    Reason.WAITING_FOR_INPUT: ReasonDoc(
        "Another resource that the job builds on has no committed output yet; it starts by itself then."
    ),
    Reason.QUOTA_PENDING: ReasonDoc("The queue has not admitted the job yet; it starts by itself when quota is free."),
    Reason.UNSCHEDULABLE: ReasonDoc(
        "No node fits the pods.",
        "lower spec.trainer.resources, change podTemplate.nodeSelector or tolerations, or add a node",
    ),
    Reason.IMAGE_PULL_FAILED: ReasonDoc(
        "A node can't get the image.",
        "check that the image exists and that podTemplate.imagePullSecrets may read it",
    ),
    Reason.POD_CONFIG_INVALID: ReasonDoc(
        "A Secret, ConfigMap or key that the pods need is missing.",
        "create it in the job's namespace; the pods start by themselves then",
    ),
    Reason.POD_REJECTED: ReasonDoc(
        "The API server refuses the pods: a ResourceQuota, a Pod Security level or a policy.",
        "ask for what the namespace allows, or have its quota or policy changed",
    ),
    Reason.PERMISSION_DENIED: ReasonDoc(
        "The operator may not do what the job needs in this namespace.",
        "have a cluster administrator install the chart's roles for this namespace",
    ),
    Reason.CHILD_CONFLICT: ReasonDoc(
        "An object with the name that the job needs belongs to someone else.",
        "delete or rename that object, or give the job another name",
    ),
    Reason.RECONCILE_FAILED: ReasonDoc(
        "The operator fails at this resource again and again.",
        "read the operator's log for this resource; it goes on by itself once the cause is gone",
    ),
    Reason.NO_PROGRESS: ReasonDoc(
        "The pods run, but no step was finished for a long time.",
        "read the trainer's log; set suspend to true and false again to restart from the newest checkpoint",
    ),
    Reason.STORAGE_DEGRADED: ReasonDoc("Uploads are being retried; training goes on and nothing is lost."),
    Reason.PENDING: ReasonDoc("The operator has seen the job and prepares it."),
    Reason.QUOTA_RESERVED: ReasonDoc("The queue admitted the job."),
    Reason.QUEUE_NOT_USED: ReasonDoc("The job names no queue, so no quota is involved."),
    Reason.STARTING: ReasonDoc("The pods are being created, pull images or check the inputs."),
    Reason.RUNNING: ReasonDoc("Steps are being made."),
    Reason.EVALUATING: ReasonDoc("All candidates of a sweep are merged, and their EvalSuites run."),
    Reason.CHECKPOINTED: ReasonDoc(
        "The pods were asked to stop and have written a checkpoint; not counted as a failure."
    ),
    Reason.RESTARTING: ReasonDoc("A pod failed; all start again from the newest checkpoint."),
    Reason.SUSPENDING: ReasonDoc("The pods write a checkpoint and end, because spec.suspend is true."),
    Reason.SUSPENDED: ReasonDoc("spec.suspend is true. Set it to false to go on from the newest checkpoint."),
    Reason.PREEMPTED: ReasonDoc(
        "The queue took the quota back; the job goes on from the newest checkpoint when it gets it again."
    ),
    Reason.RESUMED: ReasonDoc("The job goes on after a suspension."),
    Reason.COMPLETED: ReasonDoc("The output is durable; status.output tells where."),
    Reason.DELETING_ARTIFACTS: ReasonDoc(
        "The job is deleted and deletionPolicy is Delete: its S3 data is being removed."
    ),
    Reason.INVALID_SPEC: ReasonDoc(
        "The spec can't work, in a way that the API server could not see.",
        "create the job again with the field that the message names corrected",
    ),
    Reason.INVALID_DATA: ReasonDoc(
        "The training data has records that can't be used.",
        "correct the records that the message names (history/data-report.json in S3 has all), or set data.overlong, "
        "and create the job again",
    ),
    Reason.INPUT_FAILED: ReasonDoc(
        "The resource that the job builds on failed, or does not have the checkpoint asked for.",
        "repair that resource, or name another one in `from`, and create the job again",
    ),
    Reason.MODEL_UNUSABLE: ReasonDoc(
        "The model can't be loaded: files missing or damaged, unknown architecture, no chat template.",
        "point spec.model at a complete Hugging Face layout, or set data.chatTemplate",
    ),
    Reason.STORAGE_UNAVAILABLE: ReasonDoc(
        "S3 can't be used: endpoint, bucket or credentials.",
        "correct spec.storage or the namespace's Secret pinnace-storage, and create the job again",
    ),
    Reason.DIVERGED: ReasonDoc(
        "The loss became NaN or infinite.",
        "lower training.learningRate, raise warmupPercent, lower maxGradNorm, or use precision fp32",
    ),
    Reason.OUT_OF_MEMORY: ReasonDoc(
        "A container used more memory than its limit, or the device's memory was full.",
        "raise trainer.resources.limits.memory; or lower training.microBatchSize or maxLength; "
        "or set gradientCheckpointing, a higher deepspeed.zeroStage, offload or lora",
    ),
    Reason.EVICTED: ReasonDoc(
        "The node took the pod away: disk or memory pressure, or a drain.",
        "set resources.requests (also ephemeral-storage) to what the job uses, or use a larger node",
    ),
    Reason.NODE_LOST: ReasonDoc(
        "The node that a pod ran on is gone.", "check the node; the job restarts elsewhere by itself"
    ),
    Reason.RENDEZVOUS_FAILED: ReasonDoc(
        "The trainer pods did not find each other.",
        "allow traffic between the job's pods (NetworkPolicy, DNS), and check that all could start",
    ),
    Reason.TRAINER_FAILED: ReasonDoc(
        "The trainer ended with an error.", "read status.lastFailure.logTail and the trainer's log"
    ),
    Reason.WORKER_FAILED: ReasonDoc(
        "The merge worker ended with an error.", "read status.lastFailure.logTail and the worker's log"
    ),
    Reason.ROLLOUT_FAILED: ReasonDoc(
        "A rollout server ended with an error.", "read status.lastFailure.logTail and the server's log"
    ),
    Reason.SAMPLER_FAILED: ReasonDoc(
        "A sampler ended with an error.", "read status.lastFailure.logTail and the sampler's log"
    ),
    Reason.COORDINATOR_FAILED: ReasonDoc(
        "The coordinator or the proxy of a run ended with an error.",
        "read status.lastFailure.logTail and the pod's log",
    ),
    Reason.SHARD_FAILED: ReasonDoc(
        "A shard of the evaluation failed too often.", "read status.lastFailure; other shards' records stay"
    ),
    Reason.JUDGE_UNAVAILABLE: ReasonDoc(
        "The model that grades answers can't be reached.",
        "check the judge's endpoint and its Secret; nothing was counted as wrong",
    ),
    Reason.OUTPUT_MISSING: ReasonDoc(
        "The pods ended well, but no committed output is in S3.",
        "check that nothing else deletes below the run's path, and create the job again",
    ),
    Reason.BACKOFF_LIMIT_EXCEEDED: ReasonDoc(
        "The pods failed more often than spec.backoffLimit allows.",
        "remove the cause that status.lastFailure names, then raise spec.backoffLimit or create the job again",
    ),
    Reason.DEADLINE_EXCEEDED: ReasonDoc(
        "The job ran longer than spec.activeDeadlineSeconds.",
        "create it again with a later deadline; spec.model.from of the new job can use the old one's latest checkpoint",
    ),
    Reason.ARTIFACT_DELETION_FAILED: ReasonDoc(
        "The job's S3 data could not be deleted.",
        "make storage reachable again, or set deletionPolicy to Retain to keep the data and let the job go",
    ),
    Reason.AVAILABLE: ReasonDoc("All tools serve calls."),
    Reason.DEGRADED: ReasonDoc("Some replicas or tools are down; backups serve."),
    Reason.SCALING: ReasonDoc("Replicas are being added or removed."),
    Reason.DRAINING: ReasonDoc("Old replicas finish their calls."),
    Reason.UNAVAILABLE: ReasonDoc(
        "At least one tool has no replica and no backup.", "read the tool's condition and its pods' log"
    ),
    Reason.AT_ZERO: ReasonDoc("It is idle and has no pods; the next call or lease starts one and is held meanwhile."),
    Reason.CRASH_LOOP: ReasonDoc(
        "A container ends again and again soon after its start.",
        "read its log (kubectl logs --previous) and correct the server's image, command, args or env",
    ),
    Reason.CONTRACT_FAILED: ReasonDoc(
        "The server runs, but its contract test fails: its tools can't be listed, or the test call goes wrong.",
        "read the server's log; check its name in the catalogue, env, envFrom and egress",
    ),
    Reason.GATEWAY_SILENT: ReasonDoc(
        "The gateway's pods run, but none reports to the operator.",
        "allow traffic from the gateway to the operator's port 8443 (NetworkPolicies of both namespaces), "
        "and read the gateway's log",
    ),
}


def explain(reason: Reason, fact: str = "", *, remedy: str | None = None) -> str:
    """A message for people: the fact (or what the reason means), then the remedy where there is one.

    `remedy` stands in for the usual one where a kind has other fields to change.
    """
    doc = REASONS[reason]
    text = (fact or doc.meaning).strip().rstrip(".")
    remedy = remedy or doc.remedy
    return f"{text}. Remedy: {remedy}." if remedy else f"{text}."


class Condition(ApiModel):
    """One aspect of a resource's state, as in every Kubernetes API."""

    type: Annotated[ConditionType, Field()]
    """Which aspect."""
    status: Literal["True", "False", "Unknown"]
    """Whether it holds."""
    observed_generation: Annotated[int, whole(0, 2**53)] = 0
    """The metadata.generation that this condition was computed from."""
    last_transition_time: Time
    """When `status` last changed (not the reason or the message)."""
    reason: Reason
    """Why, in one word of a closed list."""
    message: Annotated[str, Field(max_length=4096)] = ""
    """Why, for people; it names the remedy where one is needed."""


def find(conditions: Iterable[Condition], type_: ConditionType) -> Condition | None:
    """The condition of that type."""
    return next((each for each in conditions if each.type is type_), None)


def is_true(conditions: Iterable[Condition], type_: ConditionType) -> bool:
    found = find(conditions, type_)
    return found is not None and found.status == "True"


_PRECEDENCE = {
    ConditionType.FAILED: State.FAILED,
    ConditionType.COMPLETE: State.COMPLETE,
    ConditionType.SUSPENDED: State.SUSPENDED,
    ConditionType.STALLED: State.STALLED,
    ConditionType.PROGRESSING: State.RUNNING,
}


def state_of(conditions: Iterable[Condition]) -> State:
    """Sum conditions up. It depends on neither their order nor their age, so it is right after a resume too."""
    true = {each.type for each in conditions if each.status == "True"}
    return next((state for type_, state in _PRECEDENCE.items() if type_ in true), State.PENDING)
