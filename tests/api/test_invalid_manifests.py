"""What a user is told about a wrong manifest: the real API server's words, which name the field and the remedy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from pinnace_operator.api.sft import SFTJob
from pydantic import ValidationError

from tests.api.cases import Case, Manifest

GPU = {"trainer.device": "cuda"}


TRAIN = "data.train.builtin"
POD = "trainer.podTemplate"
CASES = [
    # Unions
    Case("no model", {"model": {}}, ("spec.model", "exactly one of uri, hub, from")),
    Case("model missing", {"model": ...}, ("spec.model", "Required value")),
    Case(
        "two models",
        {"model.hub": {"repo": "Qwen/Qwen3-4B", "revision": "main"}},
        ("spec.model", "exactly one of uri, hub, from"),
    ),
    Case("no data", {TRAIN: ...}, ("spec.data.train", "exactly one of uri, hub, configMap, builtin")),
    Case("data missing", {"data": ...}, ("spec.data", "Required value")),
    Case(
        "two data sources",
        {"data.train.uri": "s3://pinnace/data"},
        ("spec.data.train", "exactly one of uri, hub, configMap, builtin"),
    ),
    Case("empty evaluation data", {"data.eval": {}}, ("spec.data.eval", "exactly one of")),
    Case(
        "evaluation data twice",
        {"data.eval": {"uri": "s3://pinnace/held-out"}, "data.evalPercent": 5},
        ("spec.data.evalPercent", "remove evalPercent or eval"),
    ),
    # References
    Case(
        "model from itself",
        {"model": {"from": {"kind": "SFTJob", "name": "job"}}},
        ("spec.model", "can't start from itself", "name another job, or use uri or hub"),
    ),
    Case(
        "model from a kind without models",
        {"model": {"from": {"kind": "EvalSuite", "name": "other"}}},
        ("spec.model.from.kind", "Unsupported value", '"SFTJob", "MergeJob", "RLRun"'),
    ),
    Case("reference without name", {"model": {"from": {"kind": "SFTJob"}}}, ("spec.model.from.name", "Required value")),
    Case(
        "unknown checkpoint",
        {"model": {"from": {"kind": "SFTJob", "name": "other", "checkpoint": "newest"}}},
        ("spec.model.from.checkpoint", "'latest', 'best' or the number of a step"),
    ),
    Case(
        "checkpoint of a merge",
        {"model": {"from": {"kind": "MergeJob", "name": "other", "checkpoint": "best"}}},
        ("spec.model.from", "a MergeJob has no checkpoints", "remove the field"),
    ),
    # Addresses and names
    Case("model by file path", {"model.uri": "/models/tiny"}, ("spec.model.uri", "s3://bucket/models/qwen3-4b")),
    Case(
        "model by https", {"model.uri": "https://host/model"}, ("spec.model.uri", "must be an S3 address with bucket")
    ),
    Case("bucket without path", {"model.uri": "s3://pinnace"}, ("spec.model.uri", "with bucket and path")),
    Case(
        "hub repository without owner",
        {"model": {"hub": {"repo": "qwen", "revision": "main"}}},
        ("spec.model.hub.repo", "must be 'owner/name'"),
    ),
    Case(
        "hub without revision",
        {"model": {"hub": {"repo": "Qwen/Qwen3-4B"}}},
        ("spec.model.hub.revision", "Required value"),
    ),
    Case(
        "key that no ConfigMap has",
        {"data.train": {"configMap": {"name": "data", "key": "a/b"}}},
        ("spec.data.train.configMap.key", "must be a key of the ConfigMap"),
    ),
    Case(
        "upper-case ConfigMap",
        {"data.chatTemplate": {"name": "Template", "key": "t"}},
        ("spec.data.chatTemplate.name", "lower-case letters"),
    ),
    Case(
        "endpoint without scheme", {"storage": {"endpoint": "s3:9000"}}, ("spec.storage.endpoint", "http or https URL")
    ),
    Case("bucket as address", {"storage": {"bucket": "s3://pinnace"}}, ("spec.storage.bucket", "without 's3://'")),
    Case(
        "prefix with slash",
        {"storage": {"prefix": "/teams/"}},
        ("spec.storage.prefix", "without leading or trailing '/'"),
    ),
    Case("queue name", {"queueName": "Team Queue"}, ("spec.queueName", "lower-case letters, digits and '-'")),
    Case("image with spaces", {"trainer.image": "my image"}, ("spec.trainer.image", "image reference without spaces")),
    Case("name too long", {"metadata.name": "a" * 44}, ("metadata.name", "at most 43", "choose a shorter name")),
    Case("name starts with a digit", {"metadata.name": "4b"}, ("metadata.name", "start with a letter")),
    Case("name with a dot", {"metadata.name": "a.b"}, ("metadata.name", "DNS label")),
    # Numbers
    Case("learning rate as number", {"training.learningRate": 2e-5}, ("spec.training.learningRate", "type string")),
    Case(
        "learning rate in words", {"training.learningRate": "small"}, ("spec.training.learningRate", 'such as "2e-5"')
    ),
    Case("learning rate zero", {"training.learningRate": "0"}, ("spec.training.learningRate", "above 0 and at most 1")),
    Case("learning rate high", {"training.learningRate": "2"}, ("spec.training.learningRate", "at most 1")),
    Case("weight decay negative", {"training.weightDecay": "-0.1"}, ("spec.training.weightDecay", "from 0 to 1")),
    Case("dropout one", {"lora": {"dropout": "1"}}, ("spec.lora.dropout", "from 0 to below 1")),
    Case("no epochs", {"training.epochs": 0}, ("spec.training.epochs", "greater than or equal to 1")),
    Case(
        "warm-up above all",
        {"training.warmupPercent": 101},
        ("spec.training.warmupPercent", "less than or equal to 100"),
    ),
    Case("all held out", {"data.evalPercent": 51}, ("spec.data.evalPercent", "less than or equal to 50")),
    Case("ZeRO 4", {"deepspeed.zeroStage": 4}, ("spec.deepspeed.zeroStage", "less than or equal to 3")),
    Case("samples in quotes", {f"{TRAIN}.samples": "256"}, (f"spec.{TRAIN}.samples", "type integer")),
    Case("deadline in words", {"activeDeadlineSeconds": "1h"}, ("spec.activeDeadlineSeconds", "type integer")),
    Case("no checkpoint kept", {"checkpoint.keepLast": 0}, ("spec.checkpoint.keepLast", "greater than or equal to 1")),
    # Choices
    Case(
        "precision", {"training.precision": "fp16"}, ("spec.training.precision", "Unsupported value", '"bf16", "fp32"')
    ),
    Case("schedule", {"training.schedule": "cosine"}, ("spec.training.schedule", '"Cosine", "Linear", "Constant"')),
    Case("device missing", {"trainer.device": ...}, ("spec.trainer.device", "Required value")),
    Case("device", {"trainer.device": "tpu"}, ("spec.trainer.device", '"cpu", "cuda"')),
    Case("overlong", {"data.overlong": "Truncate"}, ("spec.data.overlong", '"Split", "Skip", "Fail"')),
    Case("deletion policy", {"deletionPolicy": "Keep"}, ("spec.deletionPolicy", '"Retain", "Delete"')),
    Case("misspelt field", {"training.learning_rate": "1e-5"}, ("spec.training.learning_rate", "unknown field")),
    # Fields that must fit together
    Case(
        "batch does not divide",
        {"training.globalBatchSize": 6, "training.microBatchSize": 4},
        ("spec.training", "globalBatchSize", "multiple of microBatchSize", "lower microBatchSize"),
    ),
    Case(
        "batch smaller than processes",
        {"training.globalBatchSize": 4, "trainer.nodes": 8},
        ("spec.training", "globalBatchSize", "raise it to such a multiple"),
    ),
    Case(
        "sequence parallel on one process",
        {"deepspeed.sequenceParallel": 2},
        ("spec.deepspeed", "sequenceParallel", "must divide trainer.nodes", "change one of them"),
    ),
    Case(
        "sequence that can't be cut",
        {"deepspeed.sequenceParallel": 2, "trainer.nodes": 2, "training.maxLength": 1023},
        ("spec.training", "maxLength", "multiple of deepspeed.sequenceParallel"),
    ),
    Case(
        "nothing to evaluate on",
        {"training.evalEverySteps": 10},
        ("spec.training", "evalEverySteps", "set data.eval or data.evalPercent"),
    ),
    Case(
        "offload without sharding",
        {"deepspeed": {"zeroStage": 1, "offload": "Optimizer"}},
        ("spec.deepspeed.offload", "set deepspeed.zeroStage to 2 or 3"),
    ),
    Case(
        "parameters offloaded by ZeRO 2",
        {"deepspeed": {"zeroStage": 2, "offload": "OptimizerAndParameters"}},
        ("spec.deepspeed.offload", "set deepspeed.zeroStage to 3"),
    ),
    Case("no modules", {"lora": {"targetModules": []}}, ("spec.lora.targetModules", "at least 1 items")),
    Case(
        "all modules and one",
        {"lora": {"targetModules": ["all-linear", "q_proj"]}},
        ("spec.lora.targetModules", "all-linear already means all"),
    ),
    Case("module twice", {"lora": {"targetModules": ["q", "q"]}}, ("spec.lora.targetModules", "Duplicate value")),
    # Pods
    Case("cuda without GPUs", GPU, ("spec.trainer.resources", "device cuda needs GPUs", "add nvidia.com/gpu")),
    Case(
        "fewer processes than GPUs",
        {**GPU, "trainer.resources": {"limits": {"nvidia.com/gpu": 8}}},
        ("spec.trainer.processesPerNode", "must equal resources.limits of nvidia.com/gpu", "set both alike"),
    ),
    Case(
        "GPU on the CPU",
        {"trainer.resources": {"limits": {"nvidia.com/gpu": 1}}},
        ("spec.trainer.resources", "device cpu uses no nvidia.com/gpu", "set trainer.device to cuda"),
    ),
    Case(
        "request above limit",
        {"trainer.resources": {"requests": {"memory": "2Gi"}, "limits": {"memory": "1500Mi"}}},
        ("spec.trainer.resources.requests", "above its limit", "lower the request or raise the limit"),
    ),
    Case(
        "device only requested",
        {"trainer.resources": {"requests": {"example.com/fpga": 1}}},
        ("spec.trainer.resources.requests", "give the same amount in limits"),
    ),
    Case(
        "quantity with a wrong unit",
        {"trainer.resources": {"limits": {"memory": "4GB"}}},
        ("spec.trainer.resources.limits", "must be a quantity such as 4, '500m' or '16Gi'"),
    ),
    Case(
        "reserved label",
        {POD: {"labels": {"pinnace.dev/name": "x"}}},
        (f"spec.{POD}.labels", "belong to the operator", "use keys of your own"),
    ),
    Case(
        "reserved variable",
        {POD: {"env": [{"name": "AWS_SECRET_ACCESS_KEY", "value": "x"}]}},
        (f"spec.{POD}.env[0]", "belong to the operator", "spec.storage"),
    ),
    Case(
        "toleration with a value that Exists ignores",
        {POD: {"tolerations": [{"key": "gpu", "operator": "Exists", "value": "yes"}]}},
        (f"spec.{POD}.tolerations[0]", "remove value or use operator Equal"),
    ),
    Case(
        "toleration for nothing",
        {POD: {"tolerations": [{"value": "yes"}]}},
        (f"spec.{POD}.tolerations[0]", "operator Equal needs a key"),
    ),
    Case(
        "claim by two names",
        {POD: {"resourceClaims": [{"name": "gpu", "resourceClaimName": "a", "resourceClaimTemplateName": "b"}]}},
        (f"spec.{POD}.resourceClaims[0]", "exactly one of resourceClaimName and resourceClaimTemplateName"),
    ),
    Case(
        "variable twice",
        {POD: {"env": [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]}},
        (f"spec.{POD}.env[1]", "Duplicate value"),
    ),
    Case("security of the pods", {POD: {"hostNetwork": True}}, (f"spec.{POD}.hostNetwork", "unknown field")),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_the_user_is_told_field_and_remedy(
    case: Case, job: Callable[[dict[str, Any]], Manifest], message: Callable[[Manifest], str]
) -> None:
    told = message(job(case.paths))
    assert told, "the API server accepted it"
    assert not [part for part in case.says if part not in told], told


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_python_refuses_it_too(case: Case, job: Callable[[dict[str, Any]], Manifest]) -> None:
    with pytest.raises(ValidationError):
        SFTJob.from_manifest(job(case.paths))


def test_the_smallest_job_itself_is_valid(
    job: Callable[[dict[str, Any]], Manifest], message: Callable[[Manifest], str]
) -> None:
    assert message(job({})) == ""


def test_each_case_has_a_name_of_its_own() -> None:
    assert len({case.id for case in CASES}) == len(CASES) >= 40
