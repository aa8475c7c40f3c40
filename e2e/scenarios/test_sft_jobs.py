"""SFTJobs as their users see them: one and two pods, a killed trainer, and what goes wrong with reason and remedy."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
import yaml
from pinnace.storage.uri import S3Uri

from e2e.kube import Kubectl, Object, condition
from e2e.scenarios.conftest import Platform
from e2e.scenarios.pods import send_signal

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

SAMPLE = Path(__file__).parents[2] / "crds" / "samples" / "sft-two-pods.yaml"
STEPS = 24
BAD_RECORDS = (
    '{"messages": [{"role": "user", "content": "1+1"}, {"role": "assistant", "content": "2"}]}\n{"messages": 7}\n'
)


def job(name: str, nodes: int = 1, **spec: Any) -> Object:
    """The sample for two pods, shorter; the global batch is the same for any number of pods."""
    made: Object = yaml.safe_load(SAMPLE.read_text())
    made["metadata"]["name"] = name
    made["spec"]["training"].update(maxSteps=STEPS, microBatchSize=8 // nodes)
    made["spec"]["checkpoint"] = {"everySteps": 4}
    made["spec"]["trainer"].update(nodes=nodes)
    for field, value in spec.items():
        made["spec"][field] = {**made["spec"].get(field, {}), **value} if isinstance(value, dict) else value
    return made


def ended(kubectl: Kubectl, name: str, timeout: float = 300) -> Object:
    """The job, once it is Complete or Failed."""

    def look() -> Object | None:
        found = kubectl.get("sftjob", name) or {}
        return found if found.get("status", {}).get("state") in ("Complete", "Failed") else None

    result: Object = kubectl.wait(f"the end of {name}", look, timeout)
    return result


def losses(platform: Platform, kubectl: Kubectl, name: str) -> dict[int, float]:
    """Loss by step, as the newest attempt of a job tells it."""
    found = ended(kubectl, name)
    assert found["status"]["state"] == "Complete", found["status"]
    output = S3Uri.parse(found["status"]["output"]["uri"])
    attempt = found["status"].get("attempt", 0)
    path = f"s3://{output.bucket}/{output.key.rpartition('/')[0]}/history/metrics-{attempt}.jsonl"
    with platform.storage.open(path) as stream:
        lines = [json.loads(line) for line in stream.read().decode().splitlines()]
    return {line["step"]: line["loss"] for line in lines if "loss" in line}


@pytest.fixture(scope="module")
def uninterrupted(platform: Platform) -> dict[int, float]:
    kubectl = platform.namespace()
    kubectl.apply(job("alone"))
    return losses(platform, kubectl, "alone")


def test_two_pods_learn_what_one_learns(platform: Platform, uninterrupted: dict[int, float]) -> None:
    kubectl = platform.namespace()
    kubectl.apply(job("pair", nodes=2))
    kubectl.wait("both trainers", lambda: len(kubectl.list("pods", "pinnace.dev/name=pair")) == 2, 60)
    found = losses(platform, kubectl, "pair")
    greatest = max(abs(found[step] - uninterrupted[step]) for step in found)
    print(f"1 and 2 pods, {len(found)} steps: greatest difference of a loss {greatest:.1e}")
    # Sums of fp32 in another order.
    assert found == pytest.approx(uninterrupted, abs=1e-4)


def test_a_killed_trainer_resumes_and_learns_the_same(platform: Platform, uninterrupted: dict[int, float]) -> None:
    kubectl = platform.namespace()
    kubectl.apply(job("killed"))

    def checkpointed() -> Object | None:
        found = kubectl.get("sftjob", "killed") or {}
        return found if found.get("status", {}).get("checkpoint", {}).get("step", 0) >= 4 else None

    kubectl.wait("a checkpoint", checkpointed, 240, poll=0.2)
    (pod,) = kubectl.list("pods", "pinnace.dev/name=killed")
    assert send_signal(pod["metadata"]["name"], signal.SIGKILL) > 0
    found = losses(platform, kubectl, "killed")
    status = ended(kubectl, "killed")["status"]
    assert (status["restarts"], status["attempt"]) == (1, 1)
    assert status["lastFailure"]["exitCode"] == 137
    assert found == uninterrupted
    print(f"killed -9 after a checkpoint: {len(found)} steps, losses equal to the last digit")


def test_kubectl_shows_state_progress_reason_and_events(platform: Platform) -> None:
    kubectl = platform.namespace()
    kubectl.apply(job("shown", training={"maxSteps": 4}))
    ended(kubectl, "shown")
    header, row = kubectl.run("get", "sft").splitlines()
    assert header.split() == ["NAME", "STATE", "PROGRESS", "REASON", "QUEUE", "AGE"]
    assert row.split()[:4] == ["shown", "Complete", "100", "Completed"]
    described = kubectl.run("describe", "sft", "shown")
    assert all(word in described for word in ("Events:", "Starting", "Completed"))


def secret(name: str, platform: Platform, **changed: str) -> Object:
    made = platform.cluster.s3.secret("any")
    return {**made, "metadata": {"name": name}, "stringData": {**made["stringData"], **changed}}


TINY = {"training": {"maxSteps": 4}, "backoffLimit": 0}
FAILURES: dict[str, tuple[Object, str, str]] = {
    "bad-data": (
        {"data": {"train": {"configMap": {"name": "records", "key": "bad.jsonl"}}}},
        "InvalidData",
        "bad.jsonl:2",
    ),
    "nan-loss": ({"model": {"uri": "s3://pinnace/models/broken"}}, "Diverged", "learningRate"),
    "no-model": ({"model": {"uri": "s3://pinnace/models/absent"}}, "ModelUnusable", "models/absent"),
    "wrong-credentials": ({"storage": {"secretName": "wrong"}}, "StorageUnavailable", "ecret"),
    "missing-bucket": ({"storage": {"bucket": "nowhere"}}, "StorageUnavailable", "nowhere"),
    "out-of-memory": (
        {"trainer": {"resources": {"requests": {"memory": "64Mi"}, "limits": {"memory": "192Mi"}}}},
        "OutOfMemory",
        "limits.memory",
    ),
}  # fmt: skip
"""By name: what is wrong, the reason, and a word that the message must have so that it helps."""


@pytest.fixture(scope="module")
def failing(platform: Platform) -> Kubectl:
    """A namespace where all of FAILURES were applied at once."""
    kubectl = platform.namespace()
    records = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "records"},
        "data": {"bad.jsonl": BAD_RECORDS},
    }
    kubectl.apply(records, secret("wrong", platform, secretAccessKey="wrong"))
    kubectl.apply(*(job(name, **{**TINY, **wrong}) for name, (wrong, _, _) in FAILURES.items()))
    return kubectl


@pytest.mark.parametrize("name", FAILURES)
def test_a_job_that_fails_says_why_and_what_to_do(failing: Kubectl, name: str) -> None:
    _, reason, word = FAILURES[name]
    status = ended(failing, name)["status"]
    assert (status["state"], status["lastFailure"]["reason"]) == ("Failed", reason), status
    message = status["lastFailure"]["message"]
    assert word in message, message
    assert condition({"status": status}, "Failed")["reason"] == reason
    print(f"{name:18} {reason:18} {message[:150]}")


@pytest.mark.parametrize(
    ("name", "trainer", "reason", "word"),
    [
        ("no-image", {"image": "localhost/pinnace/trainer:absent"}, "ImagePullFailed", "trainer:absent"),
        ("no-node", {"resources": {"requests": {"cpu": "900"}}}, "Unschedulable", "trainer.resources"),
    ],
)
def test_a_job_that_waits_says_for_what(platform: Platform, name: str, trainer: Object, reason: str, word: str) -> None:
    kubectl = platform.namespace()
    kubectl.apply(job(name, trainer=trainer))

    def pending() -> Object | None:
        found = (kubectl.get("sftjob", name) or {}).get("status", {}).get("pending", {})
        return found if found.get("reason") == reason else None

    message = kubectl.wait(f"{name} to be {reason}", pending, 90)["message"]
    assert word in message
    print(f"{name:18} {reason:18} {message[:150]}")
