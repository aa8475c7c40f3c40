"""Pieces that several kinds share: references to models and data, storage and tracking."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from pinnace_operator.api.base import ApiModel, Rule, matches
from pinnace_operator.api.fields import (
    Bucket,
    ConfigMapKey,
    HttpUrl,
    HubRepo,
    HubRevision,
    Label,
    ObjectName,
    Prefix,
    S3Uri,
    whole,
)


def exactly_one(model: str, *fields: str) -> Rule:
    """A union: one of the fields (camelCase) is given, and only one."""
    present = ", ".join(f"has(self.{field})" for field in fields)

    def check(value: ApiModel) -> bool:
        known = type(value).model_fields.items()
        return sum(getattr(value, name) is not None for name, field in known if field.alias in fields) == 1

    return Rule(f"[{present}].exists_one(given, given)", f"{model}: give exactly one of {', '.join(fields)}", check)


class JobKind(StrEnum):
    """Kinds of jobs whose output is a model."""

    SFT_JOB = "SFTJob"
    MERGE_JOB = "MergeJob"
    RL_RUN = "RLRun"


class JobReference(ApiModel):
    """The result of another job in the same namespace. This job waits until that result is committed."""

    kind: JobKind
    """The kind of the other job: SFTJob, MergeJob or RLRun."""
    name: Label
    """Its name."""
    checkpoint: (
        Annotated[
            str,
            Field(max_length=12),
            matches(r"latest|best|[0-9]{1,10}", "must be 'latest', 'best' or the number of a step, such as '400'"),
        ]
        | None
    ) = None
    """Take a checkpoint instead of the final output: `latest`, `best`, or a step's number in quotes."""

    rules = (
        Rule(
            "self.kind != 'MergeJob' || !has(self.checkpoint)",
            "from.checkpoint: a MergeJob has no checkpoints: remove the field to take its output",
            lambda ref: ref.kind is not JobKind.MERGE_JOB or ref.checkpoint is None,
        ),
    )

    @property
    def key(self) -> tuple[str, str]:
        """Kind and name."""
        return str(self.kind), self.name


class HubModel(ApiModel):
    """A model on the Hugging Face hub. The cluster needs access to the hub; S3 is the more reliable place."""

    repo: HubRepo
    """Owner and name, such as `Qwen/Qwen3-4B-Thinking-2507`."""
    revision: HubRevision
    """Commit, tag or branch. Only a commit makes the run repeatable."""


class ModelSource(ApiModel):
    """The model to start from, in Hugging Face layout: exactly one of uri, hub and from.

    `uri: s3://bucket/path` takes files from S3, `hub: {repo, revision}` from the Hugging Face hub, and
    `from: {kind: SFTJob, name: warm-up}` the result of another job in this namespace, which makes a pipeline.
    """

    uri: S3Uri | None = None
    """Folder in S3 that holds the model, such as `s3://pinnace/models/qwen3-4b`."""
    hub: HubModel | None = None
    from_: JobReference | None = Field(default=None, alias="from")

    rules = (exactly_one("model", "uri", "hub", "from"),)


class HubData(ApiModel):
    """A dataset on the Hugging Face hub."""

    repo: HubRepo
    """Owner and name of the dataset."""
    revision: HubRevision
    """Commit, tag or branch. Only a commit makes the run repeatable."""
    config: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    """The dataset's configuration (subset), where it has several."""
    split: Annotated[str, Field(min_length=1, max_length=200)] = "train"
    """The split to read."""


class ConfigMapSource(ApiModel):
    """One key of a ConfigMap in the job's namespace."""

    name: ObjectName
    """The ConfigMap's name."""
    key: ConfigMapKey
    """The key that holds the content."""


class BuiltinData(ApiModel):
    """A small task shipped with Pinnace, generated when the job starts: for demos and tests."""

    name: Label
    """The task's name, such as `arithmetic-tools`."""
    samples: Annotated[int, whole(1, 100_000)] = 256
    """How many conversations to generate."""
    seed: Annotated[int, whole(0, 2**31 - 1)] = 0
    """Seed of the generator: the same seed gives the same conversations."""


class DataSource(ApiModel):
    """Conversations in OpenAI's message format: exactly one of uri, hub, configMap and builtin.

    Each line (or Parquet row) is an object with `messages` and, optionally, `tools`.
    """

    uri: S3Uri | None = None
    """A JSONL or Parquet file in S3, or a folder of them (shards are read in the order of their names)."""
    hub: HubData | None = None
    config_map: ConfigMapSource | None = None
    builtin: BuiltinData | None = None

    rules = (exactly_one("data source", "uri", "hub", "configMap", "builtin"),)


class StorageRef(ApiModel):
    """Where the job keeps checkpoints and output; what is absent comes from the Secret.

    The Secret's keys are endpoint, bucket, prefix, region, accessKeyId and secretAccessKey.
    """

    endpoint: HttpUrl | None = None
    """URL of the S3 service."""
    bucket: Bucket | None = None
    """The bucket."""
    prefix: Prefix | None = None
    """Path in the bucket below which everything is written."""
    region: Annotated[str, Field(min_length=1, max_length=63)] | None = None
    """The region, where the service has some."""
    secret_name: ObjectName = "pinnace-storage"  # noqa: S105 - a Secret's name, not its content
    """Secret in the job's namespace with the credentials."""


class WandbTracking(ApiModel):
    """Weights & Biases."""

    project: Annotated[str, Field(min_length=1, max_length=128)]
    """The project to log to."""
    secret_name: ObjectName
    """Secret in the job's namespace whose key `apiKey` holds the API key."""


class Tracking(ApiModel):
    """Where metrics go besides the status and the history in S3."""

    tensorboard: bool = False
    """Write TensorBoard events below the run's `history/` in S3."""
    wandb: WandbTracking | None = None


class DeletionPolicy(StrEnum):
    """What happens to the run's data in S3 when the resource is deleted."""

    RETAIN = "Retain"
    DELETE = "Delete"
