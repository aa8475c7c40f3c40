"""Python and the API server judge alike: random specs are accepted by both or refused by both."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from pinnace_operator.api.base import ApiModel
from pinnace_operator.api.merge import MergeJob
from pinnace_operator.api.sft import SFTJob
from pydantic import ValidationError

from tests.api.cases import Manifest


def _rarely(good: list[Any], bad: list[Any]) -> st.SearchStrategy[Any]:
    """Mostly good values: a manifest with many faults says little about each."""
    return st.sampled_from(good * (12 * len(bad) // len(good) + 1) + bad)


JOB_REF = {"kind": "SFTJob", "name": "other"}
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "metadata.name": _rarely(["job", "a", "a" * 43], ["a" * 44, "Job", "4b", "a.b", "a-"]),
    "spec.model": _rarely(
        [{"uri": "s3://pinnace/m"}, {"from": JOB_REF}, {"from": {**JOB_REF, "checkpoint": "12"}}],
        [
            {},
            {"uri": "s3://p/m"},
            {"uri": "s3://pinnace/a b"},
            {"from": {**JOB_REF, "name": "job"}},
            {"uri": "s3://pinnace/m\n"},
        ],
    ),
    "spec.data.evalPercent": _rarely([0, 10, 50], [51, -1]),
    "spec.training.globalBatchSize": st.sampled_from([1, 2, 3, 4, 6, 8, 12, 16, 24, 32]),
    "spec.training.microBatchSize": st.sampled_from([1, 1, 2, 3, 4]),
    "spec.training.maxLength": _rarely([64, 128, 4096], [15, 129]),
    "spec.training.evalEverySteps": st.sampled_from([0, 0, 5]),
    "spec.training.learningRate": _rarely(
        ["2e-5", "0.001", "1", "1E-3", "1e-99"], ["0", "0.0", "1.1", "", ".5", "1e400", "nan", "-1", "2e-5 "]
    ),
    "spec.lora": _rarely(
        [{}, {"dropout": "0.5"}, {"targetModules": ["q_proj", "v_proj"]}],
        [{"dropout": "1.0"}, {"targetModules": []}, {"targetModules": ["all-linear", "q"]}, {"rank": 0}],
    ),
    "spec.deepspeed.zeroStage": st.sampled_from([0, 1, 2, 3]),
    "spec.deepspeed.offload": _rarely(["None"], ["Optimizer", "OptimizerAndParameters"]),
    "spec.deepspeed.sequenceParallel": st.sampled_from([1, 1, 1, 2, 4]),
    "spec.trainer.nodes": st.sampled_from([1, 2, 4]),
    "spec.trainer.processesPerNode": st.sampled_from([1, 1, 2, 8]),
    "spec.trainer.device": st.sampled_from(["cpu", "cpu", "cpu", "cuda"]),
    "spec.trainer.resources": _rarely(
        [
            {},
            {"limits": {"memory": "4Gi"}},
            {"requests": {"cpu": "500m"}, "limits": {"cpu": 1}},
            {"requests": {"memory": "1024Mi"}, "limits": {"memory": "1Gi"}},
            {"limits": {"nvidia.com/gpu": 1}},
            {"limits": {"nvidia.com/gpu": "8"}},
        ],
        [{"limits": {"memory": "4GB"}}, {"requests": {"cpu": 2}, "limits": {"cpu": "1.5"}}, {"limits": {"cpu": -1}}],
    ),
    "spec.storage.prefix": _rarely(["", "a", "a/b"], ["/a", "a/", "a//b"]),
}


MERGE_REF = {"kind": "MergeJob", "name": "merge"}
MODEL = {"name": "agent", "source": {"uri": "s3://pinnace/m"}}
WEIGHED = {**MODEL, "weight": "0.5"}
AXIS = {"parameter": "weight", "values": ["0", "1"]}
METRIC = {"special": {"uri": "s3://pinnace/a"}, "general": {"uri": "s3://pinnace/b"}}
SUITE = {"engine": {"vllm": {"device": "cpu"}}, "benchmarks": [{"name": "gaia"}]}
EXTERNAL = {"external": {"url": "https://a.b", "tokenizer": "a/b"}}
MERGE_FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "metadata.name": _rarely(["merge-2", "a", "a" * 45], ["a" * 46, "Merge", "4b"]),
    "spec.method": _rarely(
        [{"taskArithmetic": {}}, {"ties": {"lambda": "1e-1"}}, {"linear": {}}, {"della": {"rescale": "Paper"}}],
        [
            {}, {"ties": {}, "linear": {}}, {"ties": {"lambda": "x"}}, {"slerp": {"t": "0.5"}}, {"slerp": {}},
            {"nuslerp": {}}, {"modelStock": {}}, {"karcher": {"maxIterations": 0}}, {"sce": {"selectTopk": "-1"}},
        ],
    ),
    "spec.base": _rarely(
        [{"uri": "s3://pinnace/b"}, {"from": JOB_REF}], [..., {}, {"from": MERGE_REF}, {"uri": "here"}]
    ),
    "spec.models": _rarely(
        [[WEIGHED], [WEIGHED, {**WEIGHED, "name": "other"}], [MODEL]],
        [
            [], [WEIGHED, WEIGHED], [{**WEIGHED, "density": "0.5"}], [{**WEIGHED, "gamma": "0.1"}],
            [{**WEIGHED, "density": "0"}], [{**WEIGHED, "epsilon": "0.1"}], [{**WEIGHED, "weight": "-"}],
            [{**WEIGHED, "source": {"from": MERGE_REF}}], [{**WEIGHED, "adapter": {"from": MERGE_REF}}],
        ],
    ),
    "spec.layers": _rarely(
        [[], [{"parameter": "weight", "model": "agent", "values": ["-1", "2"]}]],
        [[{"parameter": "weight", "model": "nobody", "values": ["1"]}], [{"parameter": "weight", "values": []}]],
    ),
    "spec.memoryLimit": _rarely(["1Gi", "512Mi", 10**9], ["511Mi", 100, "1GB", "6Gi"]),
    "spec.shardSize": _rarely(["1Gi", "64Gi", 1], [0, "0", "65Gi"]),
    "spec.sweep": _rarely(
        [
            {"axes": [AXIS], "metric": METRIC}, {"axes": [AXIS, {**AXIS, "model": "agent"}], "metric": METRIC},
            {"axes": [AXIS], "evalSuiteTemplate": SUITE},
        ],
        [
            {"axes": [AXIS, AXIS], "metric": METRIC}, {"axes": [], "metric": METRIC}, {"axes": [AXIS]},
            {"axes": [{**AXIS, "model": "nobody"}], "metric": METRIC},
            {"axes": [{**AXIS, "values": [str(n) for n in range(17)]}, {**AXIS, "model": "agent"}], "metric": METRIC},
            {"axes": [AXIS], "metric": {**METRIC, "specialWeight": "1.1"}},
            {"axes": [AXIS], "metric": METRIC, "evalSuiteTemplate": SUITE},
            {"axes": [AXIS], "evalSuiteTemplate": {**SUITE, "engine": EXTERNAL}},
        ],
    ),
    "spec.worker.resources": _rarely(
        [{"limits": {"memory": "4Gi"}}, {"limits": {"memory": "4Gi", "cpu": 2}}],
        [{}, {"limits": {"memory": "600M"}}, {"limits": {"nvidia.com/gpu": 1, "memory": "4Gi"}}],
    ),
    "spec.worker.device": st.sampled_from(["cpu", "cpu", "cpu", "cuda"]),
}  # fmt: skip


@st.composite
def patches(draw: st.DrawFn, fields: dict[str, st.SearchStrategy[Any]]) -> dict[str, Any]:
    """Values for a few fields; the others stay as in the smallest manifest."""
    names = draw(st.lists(st.sampled_from(sorted(fields)), min_size=1, max_size=6, unique=True))
    return {name: draw(fields[name]) for name in names}


BOTH = settings(
    max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def agree(model: type[ApiModel], manifest: Manifest, told: str) -> None:
    """`told` is what the API server said."""
    try:
        model.from_manifest(manifest)
    except ValidationError as error:
        event("refused")
        assert told, f"only Python refuses {manifest}: {error}"
    else:
        event("accepted")
        assert not told, f"only the API server refuses {manifest}: {told}"


@BOTH
@given(patch=patches(FIELDS))
def test_python_and_the_api_server_agree(
    job: Callable[[dict[str, Any]], Manifest], message: Callable[[Manifest], str], patch: dict[str, Any]
) -> None:
    agree(SFTJob, job(patch), message(job(patch)))


@BOTH
@given(patch=patches(MERGE_FIELDS))
def test_python_and_the_api_server_agree_about_merges(
    merge: Callable[[dict[str, Any]], Manifest], message: Callable[[Manifest], str], patch: dict[str, Any]
) -> None:
    agree(MergeJob, merge(patch), message(merge(patch)))
