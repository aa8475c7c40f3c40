"""The registry of kinds: one row makes a CRD."""

from __future__ import annotations

from dataclasses import dataclass

from pinnace_operator.api.base import ApiModel, Rule
from pinnace_operator.api.evalsuite import EvalSuite
from pinnace_operator.api.merge import MergeJob
from pinnace_operator.api.rlrun import RLRun
from pinnace_operator.api.sft import SFTJob
from pinnace_operator.api.toolsandbox import ToolSandbox


@dataclass(frozen=True)
class Column:
    """A column of `kubectl get`; `wide` ones show with `-o wide` only."""

    name: str
    path: str
    type: str = "string"
    wide: bool = False
    description: str = ""

    def to_schema(self) -> dict[str, str | int]:
        schema: dict[str, str | int] = {"name": self.name, "type": self.type, "jsonPath": self.path}
        if self.description:
            schema["description"] = self.description
        if self.wide:
            schema["priority"] = 1
        return schema


AGE = Column("Age", ".metadata.creationTimestamp", "date")

_JOB = (
    Column("State", ".status.state", description="The conditions in one word"),
    Column("Progress", ".status.progress.percent", "integer", description="Percent of the work done"),
    Column("Reason", '.status.conditions[?(@.type=="Progressing")].reason', description="Why the job is in its state"),
    Column("Queue", ".spec.queueName", description="Kueue LocalQueue"),
    AGE,
)
_JOB_WIDE = (
    Column("Restarts", ".status.restarts", "integer", wide=True, description="Restarts after failures"),
    Column("Output", ".status.output.uri", wide=True, description="Where the result is"),
)
JOB_COLUMNS = (
    *_JOB,
    Column("Step", ".status.progress.step", "integer", wide=True, description="Optimizer steps done"),
    Column("Loss", '.status.progress.metrics[?(@.name=="loss")].value', wide=True, description="Latest training loss"),
    *_JOB_WIDE,
)
MERGE_COLUMNS = (
    *_JOB,
    Column("Throughput", ".status.progress.throughput", wide=True, description="Speed of writing"),
    Column("Winner", ".status.sweep.winner", wide=True, description="Best candidate of the sweep"),
    *_JOB_WIDE,
)

EVAL_COLUMNS = (
    Column("Score", ".status.score", description="Mean avg@k of the benchmarks in percent, with its interval"),
    *(each for each in JOB_COLUMNS if each.name not in {"Step", "Loss", "Restarts", "Output"}),
    Column("Done", ".status.progress.step", "integer", wide=True, description="Attempts that have ended"),
    Column("Eta", ".status.progress.etaSeconds", "integer", wide=True, description="Seconds until the end"),
    Column("Report", ".status.output.uri", wide=True, description="Where the report is"),
)

RL_COLUMNS = (
    *(each for each in JOB_COLUMNS if each.name in {"State", "Progress"}),
    Column("Reward", ".status.reward", description="Mean reward of the last step's attempts"),
    *(each for each in JOB_COLUMNS if each.name in {"Reason", "Queue", "Age", "Step"}),
    Column("Policy", ".status.policyVersion", "integer", wide=True, description="Version of the published weights"),
    Column("Staleness", ".status.staleness", wide=True, description="Mean age of the last step's tokens in versions"),
    Column("Servers", ".status.rollout.ready", "integer", wide=True, description="Rollout servers that serve"),
    *(each for each in JOB_COLUMNS if each.name in {"Restarts", "Output"}),
)

SANDBOX_COLUMNS = (
    Column("Ready", '.status.conditions[?(@.type=="Ready")].status', description="Whether tools can be called"),
    Column("Tools", ".status.tools", "integer", description="Tools that agents can call"),
    Column("Servers", ".status.serversReady", description="Servers that serve, and all of them"),
    Column("Sessions", ".status.sessions.inUse", description="Sandboxes leased, and the most that there may be"),
    Column("Reason", '.status.conditions[?(@.type=="Ready")].reason', description="Why it is, or is not, ready"),
    AGE,
    Column("Endpoint", ".status.endpoint", wide=True, description="The address for agents"),
    Column("Gateways", ".status.gateway.ready", "integer", wide=True, description="Gateways that serve"),
    Column("Warm", ".status.sessions.free", "integer", wide=True, description="Sandboxes that are free"),
)


@dataclass(frozen=True)
class Scale:
    """What `kubectl scale` reads and writes."""

    spec: str
    status: str

    def to_schema(self) -> dict[str, str]:
        return {"specReplicasPath": self.spec, "statusReplicasPath": self.status}


@dataclass(frozen=True)
class Kind:
    """What a CRD says besides its schema.

    `immutable` are fields of the spec (dotted, camelCase) that can't change once status.startTime is set.
    """

    model: type[ApiModel]
    plural: str
    short_names: tuple[str, ...]
    immutable: tuple[str, ...]
    columns: tuple[Column, ...] = JOB_COLUMNS
    selectable: tuple[str, ...] = (".spec.queueName", ".status.state")
    scale: Scale | None = None

    @property
    def name(self) -> str:
        return self.model.__name__


def immutability(field: str) -> Rule:
    """A rule about changes: the field of the spec stays as it is once the job has started."""
    new, old = f"self.spec.{field}", f"oldSelf.spec.{field}"
    # Plain comparison of typed fields: optionals (`.?field`) would lose the bounds that the cost estimate needs.
    same = f"has({new}) == has({old}) && (!has({new}) || {new} == {old})"
    return Rule(
        f"!has(oldSelf.status) || !has(oldSelf.status.startTime) || ({same})",
        f"spec.{field} can't change after the job has started: "
        "create a new job under another name, or delete this one first",
        field=f".spec.{field}",
    )


KINDS = (
    Kind(
        SFTJob,
        plural="sftjobs",
        short_names=("sft",),
        immutable=(
            "model",
            "data",
            "training",
            "deepspeed",
            "lora",
            "checkpoint.everySteps",
            "trainer",
            "tracking",
            "storage",
            "queueName",
        ),
    ),
    Kind(
        MergeJob,
        plural="mergejobs",
        short_names=("mrg",),
        immutable=(
            "method",
            "base",
            "models",
            "layers",
            "tokenizer",
            "missingTensors",
            "extraTensors",
            "fp8",
            "computeDtype",
            "outputDtype",
            "memoryLimit",
            "shardSize",
            "seed",
            "sweep",
            "worker",
            "storage",
            "queueName",
        ),
        columns=MERGE_COLUMNS,
    ),
    Kind(
        EvalSuite,
        plural="evalsuites",
        short_names=("evs",),
        immutable=(
            "model",
            "engine",
            "agent",
            "toolSandbox",
            "benchmarks",
            "judge",
            "hubSecretName",
            "shards",
            "worker",
            "budget",
            "compareTo",
            "records",
            "storage",
            "queueName",
            "backoffLimit",
        ),
        columns=EVAL_COLUMNS,
    ),
    Kind(
        RLRun,
        plural="rlruns",
        short_names=("rlr",),
        immutable=(
            "model",
            "tasks",
            "agent",
            "toolSandbox",
            "reward",
            "steps",
            "contextTokens",
            "turnTokens",
            "temperature",
            "seed",
            "schedule",
            "signal",
            "loss",
            "optimizer",
            "rollout",
            "sampler",
            "control",
            "trainer",
            "checkpoint",
            "storage",
            "queueName",
            "backoffLimit",
        ),
        columns=RL_COLUMNS,
    ),
    Kind(
        ToolSandbox,
        plural="toolsandboxes",
        short_names=("tsb",),
        immutable=(),
        columns=SANDBOX_COLUMNS,
        selectable=(),
        scale=Scale(".spec.sessions.warm", ".status.sessions.free"),
    ),
)
