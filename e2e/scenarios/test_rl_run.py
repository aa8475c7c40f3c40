"""An RLRun as its users see it: it goes on whichever pod is lost, stops and resumes, and says what can't work."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from e2e import install
from e2e.kube import CommandError, Kubectl, Object
from e2e.scenarios.conftest import Platform
from e2e.scenarios.pods import send_signal

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

SAMPLE = Path(__file__).parents[2] / "crds" / "samples" / "rl-demo.yaml"
LONG, SHORT = 250, 100
LAG = 30
"""More steps than the status is behind (ten seconds) and than can be made of what was played before."""


def run(name: str, steps: int, **spec: Any) -> Object:
    """The demo's run on a model that has learned nothing, with the reference server: steps are quick and all alike."""
    made: Object
    *_, made = yaml.safe_load_all(SAMPLE.read_text())
    made["metadata"]["name"] = name
    made["spec"] |= {
        "model": {"uri": "s3://pinnace/models/tiny-qwen3"}, "steps": steps, "contextTokens": 256, "turnTokens": 8,
        "schedule": {"groupsPerStep": 2, "groupSize": 2, "maxStaleness": 1, "concurrency": 4},
        "signal": {"longFailures": "Keep", "zeroVariance": "Keep"}, "checkpoint": {"everySteps": 2},
        "rollout": {"reference": {"resources": made["spec"]["rollout"]["vllm"]["resources"]}}, **spec,
    }  # fmt: skip
    return made


def status(kubectl: Kubectl, name: str) -> Object:
    found: Object = (kubectl.get("rlrun", name) or {}).get("status", {})
    return found


def until(kubectl: Kubectl, name: str, what: str, fact: Callable[[Object], bool], timeout: float = 240) -> Object:
    """The status, once `fact` is true of it; a TimeoutError shows the last one, with the pods."""

    def look() -> Object | None:
        found = status(kubectl, name)
        return found if fact(found) else None

    try:
        reached: Object = kubectl.wait(f"{name}: {what}", look, timeout)
    except TimeoutError as error:
        pods = kubectl.run("get", "pods", "-l", f"pinnace.dev/name={name}")
        raise TimeoutError(f"{error}: {status(kubectl, name)}\n{pods}") from None
    return reached


def step(found: Object) -> int:
    return int(found.get("progress", {}).get("step", 0))


def at_least(goal: int) -> Callable[[Object], bool]:
    return lambda now: step(now) >= goal


def running(kubectl: Kubectl, name: str, role: str) -> str:
    """The name of the pod, once it runs; others may have failed before it."""

    def look() -> str | None:
        found = kubectl.list("pods", f"pinnace.dev/name={name},pinnace.dev/role={role}")
        return next((each["metadata"]["name"] for each in found if each["status"]["phase"] == "Running"), None)

    pod: str = kubectl.wait(f"{name}: a {role} that runs", look, 120)
    return pod


def check_complete(platform: Platform, kubectl: Kubectl, name: str, steps: int) -> None:
    """Every step is there once, and each has a newer policy than the one before."""
    found = until(kubectl, name, "to end", lambda now: now.get("state") in ("Complete", "Failed"))
    assert found["state"] == "Complete", found
    assert step(found) == found["checkpoint"]["step"] == steps
    history = found["output"]["uri"].rpartition("/")[0] + "/history"
    with platform.storage.open(f"{history}/metrics.jsonl") as stored:
        lines = [json.loads(line) for line in stored.read().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, steps + 1))
    versions = [line["policy_version"] for line in lines]
    assert versions == sorted(set(versions))
    with platform.storage.open(f"{history}/reward.svg") as stored:
        assert stored.read().startswith(b"<svg")
    print(f"{name}: {steps} steps, the last of policy {versions[-1]}")


@pytest.fixture(scope="module")
def kubectl(platform: Platform) -> Kubectl:
    install.load_images(platform.cluster, ["rollout-vllm"], print)
    return platform.namespace()


def test_a_run_goes_on_when_a_pod_of_each_role_is_lost(platform: Platform, kubectl: Kubectl) -> None:
    """`kubectl delete` tells all but the trainer to stop. They obey, and are made again all the same."""
    kubectl.apply(run("killed", steps=LONG))
    until(kubectl, "killed", "a checkpoint", lambda now: now.get("checkpoint", {}).get("step", 0) >= 2)
    trainer = running(kubectl, "killed", "trainer")
    for role in ("sampler", "rollout", "proxy", "coordinator"):
        lost = running(kubectl, "killed", role)
        kubectl.run("delete", "pod", lost)
        assert running(kubectl, "killed", role) != lost
        at = step(status(kubectl, "killed"))
        until(kubectl, "killed", f"to go on after the {role} was lost", at_least(at + LAG))
        print(f"{role} lost at about step {at}: it went on")
    assert send_signal(trainer, signal.SIGKILL) > 0, "it has gone on all the time"
    check_complete(platform, kubectl, "killed", steps=LONG)


def test_a_suspended_run_has_a_checkpoint_and_goes_on_from_it(platform: Platform, kubectl: Kubectl) -> None:
    kubectl.apply(run("paused", steps=SHORT, checkpoint={"everySteps": 100}))
    until(kubectl, "paused", "a step", at_least(2))
    kubectl.run("patch", "rlrun", "paused", "--type=merge", "-p", '{"spec": {"suspend": true}}')
    until(kubectl, "paused", "to be suspended", lambda now: now.get("state") == "Suspended", 90)
    kubectl.wait("no pods", lambda: not kubectl.list("pods", "pinnace.dev/name=paused"), 90)
    uid = (kubectl.get("rlrun", "paused") or {})["metadata"]["uid"]
    saved = platform.storage.run(f"{kubectl.namespace}/rlrun/paused/{uid[:8]}").checkpoints.newest()
    assert saved is not None
    assert 2 <= saved.step < SHORT
    kubectl.run("patch", "rlrun", "paused", "--type=merge", "-p", '{"spec": {"suspend": false}}')
    check_complete(platform, kubectl, "paused", steps=SHORT)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"schedule": {"groupSize": 1}}, "set groupSize to 2 or more"),
        ({"turnTokens": 512}, "leaves no room for a prompt"),
        ({"trainer": {"device": "cpu", "engine": "Torch", "processes": 2}}, "engine Torch has one process"),
    ],
)
def test_a_run_that_can_not_work_is_refused(kubectl: Kubectl, change: Object, says: str) -> None:
    with pytest.raises(CommandError, match=says):
        kubectl.apply(run("refused", steps=2, **change))


def test_what_only_a_look_at_the_model_tells_fails_the_run_with_the_remedy(kubectl: Kubectl) -> None:
    trainer = {"device": "cpu", "engine": "Torch", "precision": "fp32"}
    kubectl.apply(run("long", steps=2, contextTokens=8192, trainer=trainer))
    found = until(kubectl, "long", "to fail", lambda now: now.get("state") == "Failed")
    assert found["lastFailure"]["reason"] == "InvalidSpec"
    assert "lower contextTokens" in found["lastFailure"]["message"]
