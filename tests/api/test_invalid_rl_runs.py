"""What a user is told about a wrong RLRun: the real API server's words, which name the field and the remedy."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pinnace_operator.api.conditions import Condition, ConditionType, Reason
from pinnace_operator.api.fields import Time
from pinnace_operator.api.kinds import KINDS
from pinnace_operator.api.rlrun import RLRun
from pinnace_operator.api.rlstatus import RLRunStatus, RolloutStatus
from pinnace_operator.api.status import OutputRef, Progress
from pydantic import TypeAdapter, ValidationError

from e2e.kube import CommandError, Kubectl

from .cases import Case, Manifest
from .conftest import patched

NOW = TypeAdapter(Time).validate_python("2026-01-02T03:04:05Z")
GPU = {"nvidia.com/gpu": 1}
BUILTIN = {"name": "arithmetic-tools"}


def smallest() -> Manifest:
    """The smallest valid run."""
    return {
        "apiVersion": "pinnace.dev/v1alpha1",
        "kind": "RLRun",
        "metadata": {"name": "run"},
        "spec": {
            "model": {"uri": "s3://pinnace/models/tiny"},
            "tasks": {"builtin": BUILTIN},
            "agent": {"loop": {}},
            "reward": {"builtin": {}},
            "steps": 10,
            "contextTokens": 8192,
            "rollout": {"reference": {}},
            "trainer": {"device": "cpu"},
        },
    }


CASES = [
    # What must be there
    *(
        Case(f"no {field}", {field: ...}, (f"spec.{field}", "Required value"))
        for field in ("model", "tasks", "agent", "reward", "steps", "contextTokens", "rollout", "trainer")
    ),
    Case(
        "itself as model",
        {"model": {"from": {"kind": "RLRun", "name": "run"}}},
        ("spec.model", "can't start from itself"),
    ),
    # Unions
    Case("no tasks at all", {"tasks": {}}, ("spec.tasks", "exactly one of uri, configMap, builtin")),
    Case("no agent at all", {"agent": {}}, ("spec.agent", "exactly one of loop, function, command")),
    Case("two agents", {"agent.function": "a.b:c"}, ("spec.agent", "exactly one of loop, function, command")),
    Case("no reward at all", {"reward": {}}, ("spec.reward", "exactly one of builtin, grader, function, api")),
    Case(
        "a rule and a judge",
        {"reward": {"grader": {"rule": "GAIA", "judge": {"url": "https://judge.example.com/v1", "model": "m"}}}},
        ("spec.reward.grader", "exactly one of rule, judge"),
    ),
    Case(
        "two engines", {"rollout.vllm": {"device": "cpu"}}, ("spec.rollout", "exactly one of sglang, vllm, reference")
    ),
    Case("two losses", {"loss": {"grpo": {}, "gspo": {}}}, ("spec.loss", "at most one of grpo", "remove the others")),
    Case("parameter of another loss", {"loss": {"cispo": {"clipLow": "0.1"}}}, ("spec.loss.cispo.clipLow", "unknown")),
    # Who plays
    Case(
        "function without module", {"agent": {"function": "play"}}, ("spec.agent.function", "must be module:function")
    ),
    Case("empty command", {"agent": {"command": []}}, ("spec.agent.command", "at least 1 items")),
    Case("policy with a second model", {"agent.loop.policy": "Fold"}, ("spec.agent.loop.policy", '"KeepLastK"')),
    Case(
        "reward of a task that is not built in",
        {"tasks": {"uri": "s3://pinnace/tasks"}},
        ("spec.reward", "only built-in tasks have one", "use reward.function"),
    ),
    Case("nobody to judge", {"reward": {"api": {}}}, ("spec.reward", "no harness", "use reward.function")),
    Case(
        "tools for a command",
        {"agent": {"command": ["play"]}, "toolSandbox": {"name": "tools"}},
        ("spec.toolSandbox", "only agent.loop uses it", "remove it"),
    ),
    # Schedule
    Case(
        "a group of one",
        {"schedule.groupSize": 1},
        ("spec.schedule.groupSize", "baseline needs at least 2 attempts", "set groupSize to 2"),
    ),
    Case(
        "asynchronous without staleness",
        {"schedule.maxStaleness": 0},
        ("spec.schedule.maxStaleness", "set it to 1 or more, or mode to Sync"),
    ),
    Case(
        "synchronous and stale",
        {"schedule": {"mode": "Sync", "maxStaleness": 1}},
        ("spec.schedule.maxStaleness", "newest policy only", "set it to 0"),
    ),
    Case(
        "no room for a group",
        {"schedule": {"concurrency": 4, "groupSize": 8}},
        ("spec.schedule.concurrency", "holds no whole group", "raise it"),
    ),
    Case("idle samplers", {"sampler.replicas": 65}, ("spec.sampler", "more samplers than schedule.concurrency")),
    # Tokens
    Case("no room for a prompt", {"contextTokens": 4096}, ("spec.turnTokens", "no room for a prompt")),
    Case(
        "samples that fit no micro-batch",
        {"trainer.tokenBudget": 4096},
        ("spec.trainer", "fit no micro-batch", "raise it to contextTokens"),
    ),
    # Signal
    Case(
        "constant without its number",
        {"signal.normalisation": "Constant"},
        ("spec.signal.constantTokens", "set both, or neither"),
    ),
    Case(
        "reserve without its number",
        {"signal.longFailures": "Reserve"},
        ("spec.signal.longFailuresReserved", "set both, or neither"),
    ),
    Case("penalty as number", {"signal.faultPenalty": 0.5}, ("spec.signal.faultPenalty", "type string")),
    Case("learning rate of zero", {"optimizer.learningRate": "0"}, ("spec.optimizer.learningRate", "above 0")),
    Case("temperature of zero", {"temperature": "0"}, ("spec.temperature", "above 0", '"1.0"')),
    # Devices
    Case("cuda without GPUs", {"trainer.device": "cuda"}, ("spec.trainer.resources", "add nvidia.com/gpu")),
    Case(
        "GPUs without cuda",
        {"trainer.resources": {"limits": GPU}},
        ("spec.trainer.resources", "set trainer.device to cuda"),
    ),
    Case(
        "another number of processes than GPUs",
        {"trainer": {"device": "cuda", "processes": 2, "resources": {"limits": GPU}}},
        ("spec.trainer.processes", "set both alike"),
    ),
    Case(
        "a server spread over another number of GPUs",
        {"rollout": {"sglang": {"device": "cuda", "tensorParallel": 2, "resources": {"limits": GPU}}}},
        ("spec.rollout.sglang.tensorParallel", "set both alike"),
    ),
    Case(
        "a CPU server spread over GPUs",
        {"rollout": {"vllm": {"device": "cpu", "tensorParallel": 2}}},
        ("spec.rollout.vllm.tensorParallel", "has no GPUs", "set device to cuda"),
    ),
    Case(
        "Torch in two processes",
        {"trainer": {"device": "cpu", "engine": "Torch", "processes": 2}},
        ("spec.trainer.processes", "engine Torch has one process", "engine to DeepSpeed"),
    ),
    Case(
        "offload without ZeRO",
        {"trainer": {"device": "cpu", "zeroStage": 0, "offload": "Optimizer"}},
        ("spec.trainer.offload", "zeroStage 1 or more"),
    ),
    Case("name too long", {"metadata.name": "a" * 42}, ("metadata.name", "at most 41", "choose a shorter name")),
    Case("misspelt field", {"stepss": 2}, ("spec.stepss", "unknown field")),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_the_user_is_told_field_and_remedy(case: Case, message: Callable[[Manifest], str]) -> None:
    told = message(patched(smallest(), case.paths))
    assert told, "the API server accepted it"
    assert not [part for part in case.says if part not in told], told


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_python_refuses_it_too(case: Case) -> None:
    with pytest.raises(ValidationError):
        RLRun.from_manifest(patched(smallest(), case.paths))


@pytest.mark.parametrize(
    "patch",
    [
        {},
        {"spec.schedule": {"mode": "Sync", "maxStaleness": 0}},
        {"spec.signal": {"normalisation": "Constant", "constantTokens": 4096}, "spec.loss": {"drGrpo": {}}},
        {"spec.loss": {"corrections": {"icepop": {"low": "0.3"}, "offPolicyMask": {}}}},
        {"spec.tasks": {"uri": "s3://pinnace/tasks"}, "spec.agent": {"function": "a.b:c"}, "spec.reward": {"api": {}}},
    ],
)
def test_what_can_work_is_accepted(patch: dict[str, Any], message: Callable[[Manifest], str]) -> None:
    manifest = patched(smallest(), patch)
    assert message(manifest) == ""
    RLRun.from_manifest(manifest)


# -- what people see of a run, and what of it they can still change

DONE = RLRunStatus(
    observed_generation=1,
    start_time=NOW,
    conditions=(
        Condition(type=ConditionType.PROGRESSING, status="False", reason=Reason.COMPLETED, last_transition_time=NOW),
        Condition(type=ConditionType.COMPLETE, status="True", reason=Reason.COMPLETED, last_transition_time=NOW),
    ),
    progress=Progress(step=60, total_steps=60, percent=100),
    output=OutputRef(uri="s3://bucket/run/output", digest="sha256:" + "0" * 64),
    policy_version=61,
    reward="0.875",
    staleness="1.3",
    rollout=RolloutStatus(ready=2, wanted=2, quarantined=0),
)
STEERED: dict[str, Any] = {
    "suspend": True,
    "activeDeadlineSeconds": 60,
    "ttlSecondsAfterFinished": 60,
    "deletionPolicy": "Delete",
}
CHANGES: dict[str, Any] = {
    "steps": 11,
    "temperature": "0.9",
    "schedule": {"groupSize": 4},
    "rollout": {"reference": {"replicas": 3}},
    "checkpoint": {"keepLast": 3},
}


@pytest.fixture
def created(kubectl: Kubectl) -> Iterator[str]:
    kubectl.run("create", "-f", "-", stdin=json.dumps(patched(smallest(), {"metadata.name": "seen"})))
    yield "seen"
    kubectl.run("delete", "rlr", "seen")


def _write(kubectl: Kubectl, status: RLRunStatus) -> None:
    patch = json.dumps([{"op": "add", "path": "/status", "value": status.to_manifest()}])
    kubectl.run("patch", "rlr", "seen", "--subresource=status", "--type=json", "-p", patch)


def _change(kubectl: Kubectl, field: str, value: Any) -> None:
    kubectl.run("patch", "rlr", "seen", "--type=merge", "-p", json.dumps({"spec": {field: value}}))


def test_columns_show_progress_reward_and_output(kubectl: Kubectl, created: str) -> None:
    _write(kubectl, DONE)
    header, row = kubectl.run("get", "rlr", created).splitlines()
    assert header.split() == ["NAME", "STATE", "PROGRESS", "REWARD", "REASON", "QUEUE", "AGE"]
    assert row.split()[1:5] == ["Complete", "100", "0.875", "Completed"]
    wide = kubectl.run("get", "rlruns", created, "-o", "wide").splitlines()[1]
    assert all(part in wide for part in ("61", "1.3", "s3://bucket/run/output"))


def test_a_full_status_comes_back_as_it_was_written(kubectl: Kubectl, created: str) -> None:
    _write(kubectl, DONE)
    stored = kubectl.get("rlr", created)
    assert stored is not None
    assert stored["status"] == DONE.to_manifest()
    assert RLRun.from_manifest(stored).status == DONE


def test_every_field_of_the_spec_is_fixed_or_can_be_steered() -> None:
    kind = next(each for each in KINDS if each.name == "RLRun")
    fields = {field.alias or name for name, field in RLRun.model_fields["spec"].annotation.model_fields.items()}  # type: ignore[union-attr]
    assert {*kind.immutable, *STEERED} == fields


@pytest.mark.parametrize("field", CHANGES)
def test_a_started_run_keeps_its_recipe(kubectl: Kubectl, created: str, field: str) -> None:
    _write(kubectl, RLRunStatus(start_time=NOW))
    with pytest.raises(CommandError, match=rf"spec\.{field} can't change after the job has started"):
        _change(kubectl, field, CHANGES[field])


@pytest.mark.parametrize("field", STEERED)
def test_a_started_run_can_still_be_steered(kubectl: Kubectl, created: str, field: str) -> None:
    _write(kubectl, RLRunStatus(start_time=NOW))
    _change(kubectl, field, STEERED[field])
