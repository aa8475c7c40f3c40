"""An RLRun as its users see it: it goes on whatever is lost, stops and resumes, and says what can't work."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
import yaml

from e2e import install
from e2e.kube import CommandError, Kubectl, Object
from e2e.scenarios.conftest import Platform
from e2e.scenarios.pods import send_signal

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

SAMPLES = Path(__file__).parents[2] / "crds" / "samples"
STEPS = 24


def sample(name: str) -> Object:
    """The last document of a sample."""
    made: Object
    *_, made = yaml.safe_load_all((SAMPLES / f"{name}.yaml").read_text())
    return made


def run(name: str, **spec: Any) -> Object:
    """The demo's run, shorter."""
    made = sample("rl-demo")
    made["metadata"]["name"] = name
    schedule = {"groupsPerStep": 2, "groupSize": 4, "maxStaleness": 2, "concurrency": 16}
    model = {"from": {"kind": "SFTJob", "name": "sft-demo"}}
    made["spec"].update(model=model, steps=STEPS, schedule=schedule, checkpoint={"everySteps": 3}, **spec)
    return made


def status(kubectl: Kubectl, name: str) -> Object:
    found: Object = (kubectl.get("rlrun", name) or {}).get("status", {})
    return found


def until(kubectl: Kubectl, name: str, what: str, fact: Any, timeout: float = 420) -> Object:
    """Waits until `fact(status)` is true; a TimeoutError shows the status."""

    def look() -> Object | None:
        found = status(kubectl, name)
        return found if fact(found) else None

    try:
        reached: Object = kubectl.wait(f"{name}: {what}", look, timeout)
        return reached
    except TimeoutError as error:
        raise TimeoutError(f"{error}: {status(kubectl, name)}") from None


def step(found: Object) -> int:
    return int(found.get("progress", {}).get("step", 0))


def pods(kubectl: Kubectl, name: str, role: str) -> set[str]:
    found = kubectl.list("pods", f"pinnace.dev/name={name},pinnace.dev/role={role}")
    return {each["metadata"]["name"] for each in found}


def check_complete(platform: Platform, kubectl: Kubectl, name: str) -> None:
    """Every step is there once, and each has a newer policy than the one before."""
    found = until(kubectl, name, "to end", lambda now: now.get("state") in ("Complete", "Failed"))
    assert found["state"] == "Complete", found
    assert step(found) == found["checkpoint"]["step"] == STEPS
    history = found["output"]["uri"].rpartition("/")[0] + "/history"
    with platform.storage.open(f"{history}/metrics.jsonl") as stored:
        lines = [json.loads(line) for line in stored.read().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, STEPS + 1))
    versions = [line["policy_version"] for line in lines]
    assert versions == sorted(set(versions))
    with platform.storage.open(f"{history}/reward.svg") as stored:
        assert stored.read().startswith(b"<svg")
    print(f"{name}: versions {versions}, rewards {[round(line['reward'], 2) for line in lines]}")


@pytest.fixture(scope="module")
def kubectl(platform: Platform) -> Kubectl:
    """A namespace with the SFTJob that the runs start from."""
    install.load_images(platform.cluster, ["rollout-vllm"], print)
    made = platform.namespace()
    made.apply(sample("sft-demo"))
    return made


def test_a_run_goes_on_when_a_pod_of_each_role_is_lost(platform: Platform, kubectl: Kubectl) -> None:
    kubectl.apply(run("killed"))
    until(kubectl, "killed", "a checkpoint", lambda now: now.get("checkpoint", {}).get("step", 0) >= 3, 600)
    for role in ("sampler", "rollout"):
        at = step(status(kubectl, "killed"))
        kubectl.run("delete", "pod", "--force", "--grace-period=0", *pods(kubectl, "killed", role))
        until(kubectl, "killed", f"more steps after the {role} was lost", lambda now, at=at: step(now) > at + 1)
    (trainer,) = pods(kubectl, "killed", "trainer")
    assert send_signal(trainer, signal.SIGKILL) > 0
    check_complete(platform, kubectl, "killed")


def test_a_suspended_run_has_a_checkpoint_and_goes_on_from_it(platform: Platform, kubectl: Kubectl) -> None:
    kubectl.apply(run("paused"))
    until(kubectl, "paused", "a step", lambda now: step(now) >= 2, 600)
    kubectl.run("patch", "rlrun", "paused", "--type=merge", "-p", '{"spec": {"suspend": true}}')
    until(kubectl, "paused", "to be suspended", lambda now: now.get("state") == "Suspended", 90)
    kubectl.wait("no pods", lambda: not kubectl.list("pods", "pinnace.dev/name=paused"), 90)
    kubectl.run("patch", "rlrun", "paused", "--type=merge", "-p", '{"spec": {"suspend": false}}')
    check_complete(platform, kubectl, "paused")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"schedule": {"groupSize": 1}}, "set groupSize to 2 or more"),
        ({"turnTokens": 512}, "leaves no room for a prompt"),
        ({"trainer": {"device": "cpu", "engine": "Torch", "processes": 2}}, "engine Torch has one process"),
    ],
)
def test_a_run_that_can_not_work_is_refused(kubectl: Kubectl, change: Object, says: str) -> None:
    made = run("refused")
    made["spec"].update(change)
    with pytest.raises(CommandError, match=says):
        kubectl.apply(made)


def test_what_only_a_look_at_the_model_tells_fails_the_run_with_the_remedy(kubectl: Kubectl) -> None:
    kubectl.apply(run("long", contextTokens=8192, trainer={"device": "cpu", "engine": "Torch", "precision": "fp32"}))
    found = until(kubectl, "long", "to fail", lambda now: now.get("state") == "Failed", 600)
    assert found["lastFailure"]["reason"] == "InvalidSpec"
    assert "lower contextTokens" in found["lastFailure"]["message"]
