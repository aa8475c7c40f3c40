"""A few blocking calls on an API server, for tests that play other controllers and check what is there."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import httpx

from e2e.faults.proxy import upstream

Object = dict[str, Any]
T = TypeVar("T")

NAMESPACES = "/api/v1/namespaces"
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
LEASES = "/apis/coordination.k8s.io/v1/namespaces/{}/leases"
SFTJOBS = "/apis/pinnace.dev/v1alpha1/namespaces/{}/sftjobs"
JOBSETS = "/apis/jobset.x-k8s.io/v1alpha2/namespaces/{}/jobsets"
SECRETS = "/api/v1/namespaces/{}/secrets"
PODS = "/api/v1/namespaces/{}/pods"
EVENTS = "/api/v1/namespaces/{}/events"


class Api:
    """The API server of `kubeconfig`, as its user. Paths are URL paths; a missing object is None or an empty list."""

    def __init__(self, kubeconfig: Path) -> None:
        server, context = upstream(kubeconfig)
        self._client = httpx.Client(base_url=server, verify=context, timeout=30)

    def get(self, path: str) -> Object | None:
        answer = self._client.get(path)
        return None if answer.status_code == 404 else self._body(answer)

    def items(self, path: str, **query: str) -> list[Object]:
        found: list[Object] = self._body(self._client.get(path, params=query)).get("items") or []
        return found

    def create(self, path: str, manifest: Object) -> Object:
        return self._body(self._client.post(path, json=manifest))

    def apply(self, path: str, manifest: Object, manager: str = "test") -> Object:
        """Server-side apply at the object's own path."""
        return self._body(
            self._client.patch(
                path, params={"fieldManager": manager, "force": "true"}, json=manifest,
                headers={"Content-Type": "application/apply-patch+yaml"},
            )
        )  # fmt: skip

    def merge(self, path: str, patch: Object) -> Object:
        return self._body(
            self._client.patch(path, json=patch, headers={"Content-Type": "application/merge-patch+json"})
        )

    def delete(self, path: str, **options: Any) -> None:
        answer = self._client.request("DELETE", path, json={"kind": "DeleteOptions", "apiVersion": "v1", **options})
        if answer.status_code != 404:
            self._body(answer)

    @staticmethod
    def _body(answer: httpx.Response) -> Object:
        if answer.status_code >= 300:
            raise RuntimeError(
                f"{answer.request.method} {answer.request.url.path}: {answer.status_code} {answer.text[:800]}"
            )
        body: Object = answer.json()
        return body


def eventually(what: str, condition: Callable[[], T | None], timeout: float = 30, poll: float = 0.05) -> T:
    """Call `condition` until it returns something true and return that.

    Raises:
        AssertionError: it did not happen in time; the message has the last value.
    """
    deadline = time.monotonic() + timeout
    while True:
        result = condition()
        if result:
            return result
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {timeout:.0f} s; last: {result!r}")
        time.sleep(poll)
