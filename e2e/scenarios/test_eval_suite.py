"""EvalSuites as their users see them: waiting for a job, killed pods, suspension, who reaches whom, and bad input."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from e2e import install
from e2e.kube import CommandError, Kubectl, Object, condition
from e2e.scenarios.conftest import Platform
from e2e.scenarios.pods import send_signal, sleeper, web

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

SAMPLES = Path(__file__).parents[2] / "crds" / "samples"
QUESTIONS, SUITE = list(yaml.safe_load_all((SAMPLES / "eval-demo.yaml").read_text()))[:2]
SUMS = {"name": "sums", "source": {"configMap": {"name": "sums", "key": "sums.yaml"}}}
ITEMS = len(QUESTIONS["data"]["sums.jsonl"].splitlines())
TOOLS: Object = {
    "apiVersion": "pinnace.dev/v1alpha1", "kind": "ToolSandbox", "metadata": {"name": "tools"},
    "spec": {"servers": [{"name": "calculator", "catalogue": "calculator"}]},
}  # fmt: skip


def suite(name: str, attempts: int = 1, **spec: Any) -> Object:
    """The sample's suite of the fine-tuned model, on sums only."""
    made: Object = json.loads(json.dumps(SUITE))
    made["metadata"]["name"] = name
    usual = {"model": {"from": {"kind": "SFTJob", "name": "sft-demo"}}, "benchmarks": [{**SUMS, "attempts": attempts}]}
    made["spec"] = {key: value for key, value in {**made["spec"], **usual, **spec}.items() if value is not None}
    return made


@dataclass(frozen=True)
class Place:
    """A namespace with a ToolSandbox, the questions, and in time a fine-tuned model."""

    kubectl: Kubectl
    platform: Platform

    def status(self, name: str) -> Object:
        found: Object = (self.kubectl.get("evalsuite", name) or {}).get("status", {})
        return found

    def ended(self, name: str) -> Object:
        """Its status, once it is Complete or Failed."""

        def look() -> Object | None:
            status = self.status(name)
            return status if status.get("state") in ("Complete", "Failed") else None

        status: Object = self.kubectl.wait(f"the end of {name}", look, 600, poll=1)
        return status

    def table(self, name: str) -> tuple[Any, ...]:
        """What a suite came to."""
        status = self.ended(name)
        assert status["state"] == "Complete", status
        (result,) = status["benchmarks"]
        return tuple(result.get(each) for each in ("done", "total", "score", "low", "high", "passAt", "failures"))

    def pods(self, name: str, role: str) -> list[str]:
        found = self.kubectl.list("pods", f"pinnace.dev/name={name},pinnace.dev/role={role}")
        return [each["metadata"]["name"] for each in found if each["status"]["phase"] in ("Pending", "Running")]

    def records(self, name: str) -> dict[str, bytes]:
        """Of attempts that have ended, by address, for a suite whose records are at `records(name)`."""
        storage = self.platform.storage
        found = [str(each.uri) for each in storage.list(self.folder(name)) if str(each.uri).endswith("/record.json")]
        return {uri: storage.open(uri).read() for uri in found}

    def folder(self, name: str) -> str:
        return f"s3://{self.platform.cluster.s3.bucket}/{self.kubectl.namespace}/records/{name}"

    def begin(self, name: str, attempts: int, **spec: Any) -> dict[str, bytes]:
        """Applies a suite with two shards; returns its first records."""
        self.kubectl.apply(suite(name, attempts, shards=2, records=self.folder(name), **spec))
        found: dict[str, bytes] = self.kubectl.wait(f"records of {name}", lambda: self.records(name), 400, poll=0.2)
        return found


@pytest.fixture(scope="module")
def place(platform: Platform) -> Iterator[Place]:
    install.load_images(platform.cluster, ["rollout-vllm"], print)
    made = Place(platform.namespace(), platform)
    made.kubectl.apply(TOOLS, QUESTIONS)
    yield made
    made.kubectl.run("delete", "namespace", made.kubectl.namespace, "--wait=false")


@pytest.fixture(scope="module")
def undisturbed(place: Place) -> tuple[Any, ...]:
    """The table of a suite that was there before its model's job."""
    place.kubectl.apply(suite("undisturbed", attempts=4))
    message = place.kubectl.wait(
        "its reason", lambda: place.status("undisturbed").get("pending", {}).get("message"), 60
    )
    assert "SFTJob/sft-demo" in message or "ToolSandbox/tools" in message
    assert not place.kubectl.list("jobsets", "pinnace.dev/name=undisturbed")
    place.kubectl.run("apply", "-f", str(SAMPLES / "sft-demo.yaml"))
    return place.table("undisturbed")


def test_a_suite_waits_for_its_models_job_and_the_trained_model_is_good(undisturbed: tuple[Any, ...]) -> None:
    done, total, score, *_ = undisturbed
    print(f"waited for SFTJob and ToolSandbox: {undisturbed}")
    assert done == total == 4 * ITEMS
    assert float(score) > 50


def test_a_killed_shard_and_a_drained_server_lose_and_change_nothing(
    place: Place, undisturbed: tuple[Any, ...]
) -> None:
    total = 16 * ITEMS
    place.begin("killed", attempts=16)
    shard, (server,) = place.pods("killed", "worker")[0], place.pods("killed", "rollout")

    def a_tenth() -> dict[str, bytes] | None:
        found = place.records("killed")
        return found if len(found) >= total // 10 else None

    kept: dict[str, bytes] = place.kubectl.wait("a tenth of the attempts", a_tenth, 120, poll=0.2)
    assert send_signal(shard, signal.SIGKILL) > 0
    place.kubectl.run("delete", "pod", server, "--wait=false")
    place.kubectl.wait("another server", lambda: set(place.pods("killed", "rollout")) - {server}, 120, poll=0.2)
    before = len(place.records("killed"))
    done, wanted, *scores, _, failures = place.table("killed")
    records = place.records("killed")
    print(f"a shard killed and the server drained after {before} of {total} attempts: {scores}")
    assert before < len(records) == done == wanted == total
    assert kept.items() <= records.items(), "an attempt that had ended was made again"
    assert scores == list(undisturbed[2:5])
    assert not failures


def test_a_suspended_suite_has_no_pods_and_goes_on_with_what_is_left(
    place: Place, undisturbed: tuple[Any, ...]
) -> None:
    place.begin("paused", attempts=4)
    suspend(place, "paused", True)
    roles = ("preflight", "rollout", "worker")
    place.kubectl.wait("no pods", lambda: not any(place.pods("paused", role) for role in roles), 120)
    assert place.status("paused")["state"] == "Suspended"
    kept = place.records("paused")
    suspend(place, "paused", False)
    assert place.table("paused") == undisturbed
    records = place.records("paused")
    print(f"suspended after {len(kept)} of {4 * ITEMS} attempts: {undisturbed}")
    assert len(kept) < len(records) == 4 * ITEMS
    assert kept.items() <= records.items(), "an attempt that had ended was made again"


def suspend(place: Place, name: str, wanted: bool) -> None:
    place.kubectl.run("patch", "evalsuite", name, "--type=merge", "-p", json.dumps({"spec": {"suspend": wanted}}))


def test_shards_reach_server_gateway_and_store_and_nothing_else(place: Place, undisturbed: tuple[Any, ...]) -> None:  # noqa: ARG001 - the model is there
    """Where the suite says which store is its own. If only the Secret does, its port is unknown, and TCP is open."""
    kubectl = place.kubectl
    kubectl.apply(sleeper("stranger"), web("shop"))
    kubectl.wait("the strangers", lambda: all(_ip(place, each) for each in ("stranger", "shop")), 60)
    place.begin("watched", attempts=200, storage={"endpoint": place.platform.cluster.s3.endpoint})
    shard, (server,) = place.pods("watched", "worker")[0], place.pods("watched", "rollout")
    (calculator,) = (each["metadata"]["name"] for each in kubectl.list("pods", "pinnace.dev/server=calculator"))
    gateway = kubectl.list("pods", "pinnace.dev/role=gateway")[0]["metadata"]["name"]
    python = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 3)"

    def reaches(pod: str, port: int) -> bool:
        try:
            kubectl.run("exec", shard, "--", "python3", "-c", python, _ip(place, pod), str(port))
        except CommandError:
            return False
        return True

    asked = ((server, 8000), (gateway, 8080), (calculator, 8080), ("shop", 8080))
    seen = {pod: reaches(pod, port) for pod, port in asked}
    with pytest.raises(CommandError):
        kubectl.run(
            "exec", "stranger", "--", "timeout", "3", "wget", "-qO-", f"http://{_ip(place, server)}:8000/health"
        )
    kubectl.run("delete", "evalsuite", "watched")
    assert seen == {server: True, gateway: True, calculator: False, "shop": False}


def _ip(place: Place, pod: str) -> str:
    return str((place.kubectl.get("pod", pod) or {}).get("status", {}).get("podIP", ""))


BASE = {"model": SUITE["spec"]["model"]}
WRONG: dict[str, tuple[Object, str, str]] = {
    "benchmark": ({"benchmarks": [{"name": "scuot"}]}, "InvalidSpec", "did you mean scout"),
    "split": ({"benchmarks": [{"name": "scout", "split": "shrot"}]}, "InvalidSpec", "short"),
    "no-tools": ({"benchmarks": [{"name": "scout"}], "toolSandbox": None}, "InvalidSpec", "spec.toolSandbox"),
    "tool": ({"toolSandbox": {"name": "tools", "tools": ["adds"]}}, "InvalidSpec", "there is add"),
    "checksum": ({"benchmarks": [{**SUMS, "checksum": "sha256:" + "0" * 64}]}, "InvalidData", "checksum"),
    "policy": ({"agent": {**SUITE["spec"]["agent"], "policy": "fould"}}, "InvalidSpec", "did you mean fold"),
    "model": ({"model": {"uri": "s3://pinnace/models/absent"}}, "ModelUnusable", "models/absent"),
}  # fmt: skip
"""By name: what is wrong, the reason, and a word that the message must have so that it helps."""


@pytest.fixture(scope="module")
def failing(place: Place) -> Place:
    """All of WRONG, applied at once."""
    place.kubectl.apply(*(suite(f"no-{name}", **{**BASE, **wrong}) for name, (wrong, _, _) in WRONG.items()))
    return place


@pytest.mark.parametrize("name", WRONG)
def test_what_can_not_work_is_said_before_a_model_is_served(failing: Place, name: str) -> None:
    _, reason, word = WRONG[name]
    status = failing.ended(f"no-{name}")
    assert (status["state"], status["lastFailure"]["reason"]) == ("Failed", reason), status
    message = status["lastFailure"]["message"]
    assert word in message, message
    assert condition({"status": status}, "Failed")["reason"] == reason
    assert not failing.kubectl.list("pods", f"pinnace.dev/name=no-{name},pinnace.dev/role=rollout")
    print(f"{name:10} {reason:14} {message[:150]}")
