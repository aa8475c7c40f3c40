"""What a user is told about a wrong MergeJob: the real API server's words, which name the field and the remedy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from pinnace_operator.api.merge import MergeJob
from pydantic import ValidationError

from tests.api.cases import Case, Manifest

AGENT = {"name": "agent", "source": {"uri": "s3://pinnace/models/agent"}, "weight": "1"}
OTHER = {"name": "other", "source": {"uri": "s3://pinnace/models/other"}, "weight": "1"}
BUILTIN = {"builtin": {"name": "arithmetic-tools"}}
METRIC = {"special": BUILTIN, "general": BUILTIN}
ROOM = {"worker.resources": {"limits": {"memory": "4Gi"}}}


def swept(*axes: dict[str, Any], **metric: Any) -> dict[str, Any]:
    return {**ROOM, "sweep": {"axes": list(axes), "metric": {**METRIC, **metric}}}


def evaluated(**template: Any) -> dict[str, Any]:
    usual = {"engine": {"vllm": {"device": "cpu"}}, "benchmarks": [{"name": "gaia"}]}
    return {"sweep": {"axes": [{"parameter": "lambda", "values": ["1"]}], "evalSuiteTemplate": {**usual, **template}}}


CASES = [
    # Methods
    Case("no method", {"method": {}}, ("spec.method", "exactly one of linear, taskArithmetic")),
    Case("method missing", {"method": ...}, ("spec.method", "Required value")),
    Case("two methods", {"method": {"ties": {}, "linear": {}}}, ("spec.method", "exactly one of")),
    Case("unknown method", {"method": {"frankenmerge": {}}}, ("spec.method.frankenmerge", "unknown field")),
    Case(
        "parameter of another method",
        {"method": {"linear": {"lambda": "1"}}},
        ("spec.method.linear.lambda", "unknown field"),
    ),
    Case("slerp without t", {"method": {"slerp": {}}}, ("spec.method.slerp.t", "Required value")),
    Case(
        "lambda as number",
        {"method": {"taskArithmetic": {"lambda": 0.5}}},
        ("spec.method.taskArithmetic.lambda", "type string"),
    ),
    Case(
        "lambda in words",
        {"method": {"ties": {"lambda": "half"}}},
        ("spec.method.ties.lambda", "must be a decimal in quotes"),
    ),
    Case("trim", {"method": {"ties": {"trim": "Layer"}}}, ("spec.method.ties.trim", '"Tensor", "Model"')),
    Case("rescale", {"method": {"dareTies": {"rescale": "l1"}}}, ("spec.method.dareTies.rescale", '"None", "L1"')),
    Case(
        "share above one",
        {"method": {"sce": {"selectTopk": "1.5"}}, "models": [{"name": "agent", "source": AGENT["source"]}]},
        ("spec.method.sce.selectTopk", "from 0 to 1"),
    ),
    # Base and models
    Case("no base", {"base": ...}, ("spec: Invalid value", "the method starts from a base", "add base")),
    Case("no models", {"models": []}, ("spec.models", "at least 1 items")),
    Case("models missing", {"models": ...}, ("spec.models", "Required value")),
    Case("model without name", {"models": [{"source": AGENT["source"]}]}, ("spec.models[0].name", "Required value")),
    Case("model twice", {"models": [AGENT, AGENT]}, ("spec.models[1]", "Duplicate value")),
    Case("model without source", {"models": [{"name": "agent"}]}, ("spec.models[0].source", "Required value")),
    Case(
        "two sources",
        {"models": [{**AGENT, "source": {"uri": "s3://b12/m", "hub": {"repo": "a/b", "revision": "main"}}}]},
        ("spec.models[0].source", "exactly one of uri, hub, from"),
    ),
    Case(
        "a merge of itself",
        {"models": [{**AGENT, "source": {"from": {"kind": "MergeJob", "name": "merge"}}}]},
        ("can't start from itself", "name another job"),
    ),
    Case(
        "itself as base",
        {"base": {"from": {"kind": "MergeJob", "name": "merge"}}},
        ("can't start from itself",),
    ),
    Case("slerp of two", {"method": {"slerp": {"t": "0.5"}}, "models": [AGENT, OTHER]}, ("exactly one model",)),
    Case("nuslerp of one", {"method": {"nuslerp": {}}}, ("spec.models", "exactly two models")),
    Case(
        "model stock of one",
        {"method": {"modelStock": {}}, "models": [{"name": "agent", "source": AGENT["source"]}]},
        ("spec.models", "at least two models"),
    ),
    # Parameters of a model
    Case(
        "density without thinning",
        {"models": [{**AGENT, "density": "0.5"}]},
        ("spec.models", "the method has no density", "ties", "remove it"),
    ),
    Case("weight of karcher", {"method": {"karcher": {}}}, ("spec.models", "the method has no weight", "remove it")),
    Case(
        "gamma of ties",
        {"method": {"ties": {}}, "models": [{**AGENT, "gamma": "0.01"}]},
        ("the method has no gamma", "breadcrumbs"),
    ),
    Case(
        "epsilon of dare",
        {"method": {"dareTies": {}}, "models": [{**AGENT, "epsilon": "0.1"}]},
        ("the method has no epsilon", "della"),
    ),
    Case(
        "density zero",
        {"method": {"ties": {}}, "models": [{**AGENT, "density": "0"}]},
        ("spec.models[0].density", "above 0 and at most 1"),
    ),
    Case("weight in words", {"models": [{**AGENT, "weight": "much"}]}, ("spec.models[0].weight", "decimal in quotes")),
    # Layers
    Case(
        "layers of an unknown model",
        {"layers": [{"parameter": "weight", "model": "nobody", "values": ["1"]}]},
        ("spec.layers", "no model of that name"),
    ),
    Case("layers without values", {"layers": [{"parameter": "weight", "values": []}]}, ("spec.layers[0].values",)),
    Case(
        "a value that is no number",
        {"layers": [{"parameter": "weight", "values": ["0.1", "x"]}]},
        ("spec.layers[0].values[1]", "decimal in quotes"),
    ),
    # Formats and sizes
    Case("output in fp64", {"outputDtype": "fp64"}, ("spec.outputDtype", '"bf16", "fp16", "fp32"')),
    Case("computation in bf16", {"computeDtype": "bf16"}, ("spec.computeDtype", '"fp32", "fp64"')),
    Case("tokenizer", {"tokenizer": "union"}, ("spec.tokenizer", '"Base", "AlignToBase"')),
    Case("little memory", {"memoryLimit": "256Mi"}, ("spec.memoryLimit", "give at least 512Mi")),
    Case("memory in GB", {"memoryLimit": "2GB"}, ("spec.memoryLimit", "must be a quantity")),
    Case("giant shards", {"shardSize": "1Ti"}, ("spec.shardSize", "at most 64Gi")),
    Case("empty shards", {"shardSize": 0}, ("spec.shardSize", "more than 0")),
    # Sweeps
    Case("a sweep of nothing", swept(), ("spec.sweep.axes", "at least 1 items")),
    Case(
        "a sweep without metric",
        {**ROOM, "sweep": {"axes": [{"parameter": "lambda", "values": ["1"]}]}},
        ("spec.sweep", "exactly one of metric, evalSuiteTemplate"),
    ),
    Case(
        "losses and suites",
        {**ROOM, "sweep": {**evaluated()["sweep"], "metric": METRIC}},
        ("spec.sweep", "exactly one of metric, evalSuiteTemplate"),
    ),
    Case(
        "suites of an endpoint",
        evaluated(engine={"external": {"url": "https://a.b/v1", "tokenizer": "owner/name"}}),
        ("spec.sweep.evalSuiteTemplate.engine", "serve the candidates with vllm or sglang"),
    ),
    Case(
        "a model in the template",
        evaluated(model={"uri": "s3://pinnace/m"}),
        ("spec.sweep.evalSuiteTemplate.model", "unknown field"),
    ),
    Case(
        "suites without benchmarks",
        evaluated(benchmarks=[]),
        ("spec.sweep.evalSuiteTemplate.benchmarks", "at least 1 items"),
    ),
    Case(
        "what suites refuse",
        evaluated(agent={"contextTokens": 4096}, engine={"vllm": {"device": "cpu", "contextTokens": 16}}),
        ("spec.sweep.evalSuiteTemplate.agent", "longer than the server's"),
    ),
    Case("no suite at a time", evaluated(parallel=0), ("spec.sweep.evalSuiteTemplate.parallel", "equal to 1")),
    Case(
        "a name that leaves suites no room",
        {"metadata.name": "a" * 40, **evaluated()},
        ("metadata.name", "at most 39", "EvalSuites are named after the job"),
    ),
    Case(
        "an axis twice",
        swept({"parameter": "lambda", "values": ["1"]}, {"parameter": "lambda", "values": ["2"]}),
        ("spec.sweep.axes", "two axes are for the same parameter"),
    ),
    Case(
        "a value twice",
        swept({"parameter": "lambda", "values": ["1", "1"]}),
        ("spec.sweep.axes[0].values", "Duplicate"),
    ),
    Case(
        "too many candidates",
        swept(*({"parameter": each, "values": [str(n) for n in range(6)]} for each in ("lambda", "weight"))),
        ("spec.sweep.axes", "more than 32 combinations", "fewer values"),
    ),
    Case(
        "a sweep over an unknown model",
        swept({"parameter": "weight", "model": "nobody", "values": ["1"]}),
        ("spec", "sweep.axes.model", "no model of that name"),
    ),
    Case(
        "general data missing",
        {**ROOM, "sweep": {"axes": [{"parameter": "lambda", "values": ["1"]}], "metric": {"special": BUILTIN}}},
        ("spec.sweep.metric.general", "Required value"),
    ),
    Case(
        "weight of the special loss",
        swept({"parameter": "lambda", "values": ["1"]}, specialWeight="2"),
        ("spec.sweep.metric.specialWeight", "from 0 to 1"),
    ),
    Case(
        "a sweep without room for the model",
        {"sweep": {"axes": [{"parameter": "lambda", "values": ["1"]}], "metric": METRIC}},
        ("spec.worker", "worker.resources.limits.memory", "set it to memoryLimit and the size of the model"),
    ),
    # Worker
    Case(
        "less memory than the limit",
        {"memoryLimit": "4Gi", "worker.resources": {"limits": {"memory": "2Gi"}}},
        ("spec.worker", "below memoryLimit", "raise it"),
    ),
    Case("cuda without GPU", {"worker.device": "cuda"}, ("spec.worker.resources", "device cuda needs nvidia.com/gpu")),
    Case(
        "GPU on the CPU",
        {"worker.resources": {"limits": {"nvidia.com/gpu": 1}}},
        ("spec.worker.resources", "device cpu must have none"),
    ),
    Case("name too long", {"metadata.name": "a" * 46}, ("metadata.name", "at most 45", "choose a shorter name")),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_the_user_is_told_field_and_remedy(
    case: Case, merge: Callable[[dict[str, Any]], Manifest], message: Callable[[Manifest], str]
) -> None:
    told = message(merge(case.paths))
    assert told, "the API server accepted it"
    assert not [part for part in case.says if part not in told], told


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_python_refuses_it_too(case: Case, merge: Callable[[dict[str, Any]], Manifest]) -> None:
    with pytest.raises(ValidationError):
        MergeJob.from_manifest(merge(case.paths))


def test_the_smallest_merge_itself_is_valid(
    merge: Callable[[dict[str, Any]], Manifest], message: Callable[[Manifest], str]
) -> None:
    assert message(merge({})) == ""


def test_a_sweep_with_suites_needs_no_room_for_the_model(
    merge: Callable[[dict[str, Any]], Manifest], message: Callable[[Manifest], str]
) -> None:
    manifest = merge(Case("roomy", {"metadata.name": "a" * 39, **evaluated()}, ()).paths)
    assert message(manifest) == ""
    assert MergeJob.from_manifest(manifest).spec.sweep


def test_each_case_has_a_name_of_its_own() -> None:
    assert len({case.id for case in CASES}) == len(CASES) >= 40
