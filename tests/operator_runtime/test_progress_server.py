"""Reports of pods: real tokens, real TokenReviews, a real certificate."""

from __future__ import annotations

import base64
import json
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from e2e.faults.api import eventually
from e2e.faults.cluster import Hands
from e2e.faults.operator_process import OperatorProcess


@dataclass
class Reporter:
    """A running job's pod, as it sees the progress server."""

    hands: Hands
    job: dict[str, Any]
    pod: dict[str, Any]
    client: httpx.Client

    def token(self, audience: str = "pinnace", pod: dict[str, Any] | None = None) -> str:
        bound = pod or self.pod
        request = {
            "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
            "spec": {
                "audiences": [audience],
                "boundObjectRef": {
                    "kind": "Pod", "apiVersion": "v1", "name": bound["metadata"]["name"],
                    "uid": bound["metadata"]["uid"],
                },
            },
        }  # fmt: skip
        path = f"/api/v1/namespaces/{self.hands.namespace}/serviceaccounts/default/token"
        return str(self.hands.api.create(path, request)["status"]["token"])

    def report(self, **changes: Any) -> dict[str, Any]:
        meta = self.job["metadata"]
        return {
            "kind": "SFTJob", "namespace": meta["namespace"], "name": meta["name"], "uid": meta["uid"], "attempt": 0,
            "step": 3, "totalSteps": 12, "metrics": [{"name": "loss", "value": "1.5"}], **changes,
        }  # fmt: skip

    def post(self, report: dict[str, Any] | bytes, token: str | None = None) -> httpx.Response:
        body = report if isinstance(report, bytes) else json.dumps(report).encode()
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return self.client.post("/v1/progress", content=body, headers=headers)


@pytest.fixture
def reporter(operator: OperatorProcess, hands: Hands) -> Iterator[Reporter]:
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}}
    hands.api.apply(f"/api/v1/namespaces/{hands.namespace}/serviceaccounts/default", account)
    job = hands.submit("tiny")
    pod = hands.create_pod(hands.wait_jobset("tiny"))
    hands.run_pod(pod)
    eventually("the job runs", lambda: hands.state("tiny") == "Running")
    secret = eventually("the CA", hands.ca)
    authority = base64.b64decode(secret["data"]["ca.crt"]).decode()
    context = ssl.create_default_context(cadata=authority)
    with httpx.Client(base_url=f"https://localhost:{operator.progress_port}", verify=context) as client:
        yield Reporter(hands, job, pod, client)


def test_a_report_of_the_jobs_own_pod_reaches_the_status(reporter: Reporter) -> None:
    answer = reporter.post(reporter.report(), reporter.token())
    assert answer.status_code == 200, answer.text

    def progress() -> dict[str, Any]:
        return dict(((reporter.hands.job("tiny") or {}).get("status") or {}).get("progress") or {})

    shown = eventually("the status shows it", lambda: progress() if progress().get("step") == 3 else None)
    assert (shown["totalSteps"], shown["percent"]) == (12, 25)


def test_reports_that_are_not_the_pods_own_are_refused(reporter: Reporter) -> None:
    token = reporter.token()
    assert reporter.post(reporter.report()).status_code == 401
    assert reporter.post(reporter.report(), "eyJhbGciOiJub25lIn0.e30.").status_code == 401
    assert reporter.post(reporter.report(), reporter.token(audience="someone-else")).status_code == 401
    assert reporter.post(reporter.report(uid="another"), token).status_code == 403
    assert reporter.post(reporter.report(namespace="another"), token).status_code == 403


def test_a_token_of_a_pod_without_the_jobs_label_is_refused(reporter: Reporter) -> None:
    hands = reporter.hands
    manifest = {
        "apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": hands.namespace, "name": "stranger"},
        "spec": {"containers": [{"name": "c", "image": "c"}], "serviceAccountName": "default"},
    }  # fmt: skip
    stranger = hands.api.create(f"/api/v1/namespaces/{hands.namespace}/pods", manifest)
    assert reporter.post(reporter.report(), reporter.token(pod=stranger)).status_code == 403


def test_a_report_of_an_attempt_that_is_over_is_refused(reporter: Reporter) -> None:
    token = reporter.token()
    assert reporter.post(reporter.report(attempt=2), token).status_code == 200
    answer = reporter.post(reporter.report(attempt=1), token)
    assert answer.status_code == 409
    assert "attempt 2" in answer.text


def test_a_body_that_is_too_large_or_no_report_is_refused_with_the_reason(reporter: Reporter) -> None:
    token = reporter.token()
    assert reporter.post(b"x" * (64 * 1024 + 1), token).status_code == 413
    answer = reporter.post(reporter.report(step="many"), token)
    assert answer.status_code == 400
    assert "step" in answer.text


def test_no_token_reaches_the_log(reporter: Reporter, operator: OperatorProcess) -> None:
    token = reporter.token()
    reporter.post(reporter.report(), token)
    reporter.post(reporter.report(uid="another"), token)
    assert token not in operator.log.read_text()


def test_a_replica_that_stands_by_asks_to_try_again(reporter: Reporter, operator: OperatorProcess) -> None:
    reporter.hands.take_lease({"holderIdentity": "another", "leaseDurationSeconds": 3600})
    eventually("it stands by", lambda: operator.metric("pinnace_leader") == 0)
    answer = reporter.post(reporter.report(), reporter.token())
    assert answer.status_code == 503
    assert int(answer.headers["Retry-After"]) > 0
