"""What a user is told about a wrong EvalSuite: the real API server's words, which name the field and the remedy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from pinnace_operator.api.evalsuite import EvalSuite
from pydantic import ValidationError

from .cases import Case, Manifest
from .conftest import patched

ENDPOINT = {"url": "https://models.example.com/v1", "tokenizer": "Qwen/Qwen3-4B"}


def smallest() -> Manifest:
    """The smallest valid suite."""
    return {
        "apiVersion": "pinnace.dev/v1alpha1",
        "kind": "EvalSuite",
        "metadata": {"name": "suite"},
        "spec": {
            "model": {"uri": "s3://pinnace/models/tiny"},
            "engine": {"vllm": {"device": "cpu"}},
            "benchmarks": [{"name": "gaia"}],
        },
    }


def one(**benchmark: Any) -> dict[str, Any]:
    return {"benchmarks": [{"name": "gaia", **benchmark}]}


CASES = [
    # Model and engine
    Case("nothing to serve", {"model": ...}, ("spec.model", "set model, or use engine.external without it")),
    Case("a model beside an endpoint", {"engine": {"external": ENDPOINT}}, ("spec.model", "engine.external")),
    Case("no engine", {"engine": {}}, ("spec.engine", "exactly one of vllm, sglang, external")),
    Case("two engines", {"engine.sglang": {"device": "cpu"}}, ("spec.engine", "exactly one of vllm, sglang, external")),
    Case("device missing", {"engine": {"vllm": {}}}, ("spec.engine.vllm.device", "Required value")),
    Case("cuda without GPUs", {"engine.vllm.device": "cuda"}, ("spec.engine.vllm", "add nvidia.com/gpu")),
    Case(
        "GPUs without cuda",
        {"engine.vllm.resources": {"limits": {"nvidia.com/gpu": 1}}},
        ("spec.engine.vllm.resources", "device cpu uses no nvidia.com/gpu", "set engine.device to cuda"),
    ),
    Case(
        "fewer GPUs than it is spread over",
        {"engine": {"vllm": {"device": "cuda", "tensorParallel": 4, "resources": {"limits": {"nvidia.com/gpu": 2}}}}},
        ("spec.engine.vllm.tensorParallel", "set both alike"),
    ),
    Case(
        "spread over CPUs", {"engine.vllm.tensorParallel": 2}, ("spec.engine.vllm.tensorParallel", "set device to cuda")
    ),
    Case(
        "endpoint without tokenizer",
        {"model": ..., "engine": {"external": {"url": "https://models.example.com/v1"}}},
        ("spec.engine.external.tokenizer", "Required value"),
    ),
    Case(
        "tokenizer by path",
        {"model": ..., "engine": {"external": {**ENDPOINT, "tokenizer": "/models/tiny"}}},
        ("spec.engine.external.tokenizer", "'owner/name' on the hub"),
    ),
    # Agent
    Case(
        "two policies", {"agent": {"policy": "fold", "inlinePolicy": {}}}, ("spec.agent.inlinePolicy", "remove policy")
    ),
    Case(
        "a fold that never comes",
        {"agent": {"inlinePolicy": {"overflow": "Answer", "fold": {"atPercent": 100}}}},
        ("spec.agent.inlinePolicy.fold", "lower atPercent"),
    ),
    Case("dialect", {"agent": {"dialect": "latin"}}, ("spec.agent.dialect", '"Native", "Hermes", "Action"')),
    Case("temperature as number", {"agent": {"temperature": 0.6}}, ("spec.agent.temperature", "type string")),
    Case("top-p zero", {"agent": {"topP": "0"}}, ("spec.agent.topP", "above 0 and at most 1")),
    Case("no room beside a turn", {"agent": {"contextTokens": 8192}}, ("spec.agent.contextTokens", "lower turnTokens")),
    Case(
        "longer than the server's context",
        {"agent": {"contextTokens": 32768}, "engine.vllm.contextTokens": 16384},
        ("spec.agent", "longer than the server's", "raise engine's contextTokens"),
    ),
    Case(
        "native calls that nobody parses",
        {"toolSandbox": {"name": "tools"}},
        ("spec.engine", "toolParser", "set agent.dialect to Hermes"),
    ),
    Case(
        "a tool's name",
        {"toolSandbox": {"name": "tools", "tools": ["web.search"]}, "agent": {"dialect": "Hermes"}},
        ("spec.toolSandbox.tools[0]", "such as 'web_search'"),
    ),
    # Benchmarks
    Case("no benchmarks", {"benchmarks": []}, ("spec.benchmarks", "at least 1 items")),
    Case("benchmark twice", {"benchmarks": [{"name": "gaia"}, {"name": "gaia"}]}, ("spec.benchmarks[1]", "Duplicate")),
    Case("benchmark name", {"benchmarks": [{"name": "GAIA"}]}, ("spec.benchmarks[0].name", "such as 'browsecomp-zh'")),
    Case("k above the attempts", one(attempts=4, passAt=8), ("spec.benchmarks[0].passAt", "raise attempts")),
    Case("no attempts", one(attempts=0), ("spec.benchmarks[0].attempts", "greater than or equal to 1")),
    Case("profile", one(profile="strict"), ("spec.benchmarks[0].profile", '"Official", "Community"')),
    Case("checksum", one(checksum="md5:1"), ("spec.benchmarks[0].checksum", "64 hexadecimal digits")),
    Case(
        "a revision of a copy",
        one(revision="main", source={"uri": "s3://pinnace/gaia"}),
        ("spec.benchmarks[0].revision", "remove one"),
    ),
    Case("empty source", one(source={}), ("spec.benchmarks[0].source", "exactly one of uri, configMap")),
    Case(
        "a benchmark of no known form",
        one(source={"configMap": {"name": "mine", "key": "own.json"}}),
        ("spec.benchmarks[0].source.configMap", "ends in .yaml or .py"),
    ),
    # The rest
    Case("judge without model", {"judge": {"url": "https://judge/v1"}}, ("spec.judge.model", "Required value")),
    Case("judge without scheme", {"judge": {"url": "judge:80", "model": "j"}}, ("spec.judge.url", "http or https URL")),
    Case("money without prices", {"budget": {"cost": "5"}}, ("spec.budget.cost", "set promptPrice")),
    Case("no shards", {"shards": 0}, ("spec.shards", "greater than or equal to 1")),
    Case("compared with itself", {"compareTo": ["suite"]}, ("spec.compareTo", "name another one")),
    Case("compared with too many", {"compareTo": list("abcde")}, ("spec.compareTo", "at most 4 items")),
    Case("name too long", {"metadata.name": "a" * 44}, ("metadata.name", "at most 43", "choose a shorter name")),
    Case("misspelt field", {"shard": 2}, ("spec.shard", "unknown field")),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_the_user_is_told_field_and_remedy(case: Case, message: Callable[[Manifest], str]) -> None:
    told = message(patched(smallest(), case.paths))
    assert told, "the API server accepted it"
    assert not [part for part in case.says if part not in told], told


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_python_refuses_it_too(case: Case) -> None:
    with pytest.raises(ValidationError):
        EvalSuite.from_manifest(patched(smallest(), case.paths))


@pytest.mark.parametrize(
    "patch",
    [
        {},
        {"spec.toolSandbox": {"name": "tools"}, "spec.agent": {"dialect": "Hermes"}},
        {"spec.toolSandbox": {"name": "tools"}, "spec.engine": {"sglang": {"device": "cpu", "toolParser": "qwen25"}}},
        {"spec.toolSandbox": {"name": "tools"}, "spec.engine": {"external": ENDPOINT}, "spec.model": ...},
        {"spec.agent": {"contextTokens": 16384}, "spec.engine.vllm.contextTokens": 16384},
    ],
)
def test_what_can_work_is_accepted(patch: dict[str, Any], message: Callable[[Manifest], str]) -> None:
    manifest = patched(smallest(), patch)
    assert message(manifest) == ""
    EvalSuite.from_manifest(manifest)
