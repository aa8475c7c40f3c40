"""The few requests to the API server that the gateway makes, with its pod's service-account token."""

from __future__ import annotations

import json
import os
import ssl
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import aiohttp

from pinnace.tools.gateway.errors import GatewayError

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
# The API server ends a watch after this; it is opened again. A dead connection is found by it too.
_WATCH_SECONDS = 240


class KubeRefused(GatewayError):
    """The API server said no, or could not be asked."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class Kube:
    """Reads the token anew for each request: the kubelet renews it."""

    def __init__(self, url: str, *, token: Path, ca: Path | None, namespace: str) -> None:
        self.namespace = namespace
        self._url = url.rstrip("/")
        self._token = token
        self._ssl = ssl.create_default_context(cafile=str(ca)) if ca else None
        self._http: aiohttp.ClientSession | None = None

    @classmethod
    def in_cluster(cls, environ: Mapping[str, str] = os.environ) -> Kube:
        """From what Kubernetes gives each pod; `PINNACE_SERVICE_ACCOUNT` may name another folder than the usual.

        Raises `KubeRefused` outside a cluster.
        """
        account = Path(environ.get("PINNACE_SERVICE_ACCOUNT") or ACCOUNT)
        host, port = environ.get("KUBERNETES_SERVICE_HOST"), environ.get("KUBERNETES_SERVICE_PORT", "443")
        if not host or not (account / "token").exists():
            raise KubeRefused("this is no pod with a service account: name a file by --config")
        where = f"[{host}]" if ":" in host else host
        namespace = environ.get("PINNACE_NAMESPACE") or (account / "namespace").read_text().strip()
        return cls(f"https://{where}:{port}", token=account / "token", ca=account / "ca.crt", namespace=namespace)

    def _session(self) -> aiohttp.ClientSession:
        if self._http is None:
            self._http = aiohttp.ClientSession(trust_env=False)
        return self._http

    def _options(self) -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {self._token.read_text().strip()}", "Accept": "application/json"}
        return {"headers": headers, **({"ssl": self._ssl} if self._ssl else {})}

    async def request(self, method: str, path: str, *, body: Any = None, seconds: float = 10) -> dict[str, Any]:
        """Raises `KubeRefused`."""
        timeout = aiohttp.ClientTimeout(total=seconds)
        try:
            async with self._session().request(
                method, self._url + path, json=body, timeout=timeout, **self._options()
            ) as response:
                answer: dict[str, Any] = await response.json(content_type=None)
                if response.status >= 400:
                    raise KubeRefused(f"{method} {path}: {answer.get('message', response.status)}", response.status)
                return answer
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise KubeRefused(f"{method} {path}: {type(error).__name__}: {error}") from None

    async def watch(self, path: str, selector: str) -> AsyncIterator[tuple[str, dict[str, Any]]]:
        """First ("LIST", the list), then (type, object) for each change, until the API server ends the watch.

        Raises `KubeRefused`; the caller starts anew.
        """
        listed = await self.request("GET", f"{path}?{selector}")
        yield "LIST", listed
        version = (listed.get("metadata") or {}).get("resourceVersion", "")
        query = f"{selector}&watch=1&allowWatchBookmarks=true&resourceVersion={version}&timeoutSeconds={_WATCH_SECONDS}"
        timeout = aiohttp.ClientTimeout(total=_WATCH_SECONDS + 30, sock_connect=10)
        try:
            async with self._session().get(
                f"{self._url}{path}?{query}", timeout=timeout, **self._options()
            ) as response:
                if response.status >= 400:
                    raise KubeRefused(f"watch {path}: HTTP {response.status}", response.status)
                rest = b""
                async for chunk in response.content.iter_any():
                    *lines, rest = (rest + chunk).split(b"\n")
                    for line in filter(None, lines):
                        event = json.loads(line)
                        if event.get("type") == "ERROR":
                            raise KubeRefused(f"watch {path}: {event.get('object', {}).get('message')}", 410)
                        if event.get("type") != "BOOKMARK":
                            yield event["type"], event["object"]
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise KubeRefused(f"watch {path}: {type(error).__name__}: {error}") from None

    async def review(self, token: str, audience: str) -> str:
        """TokenReview: `namespace:name` of the service account, empty when the token is not good for `audience`."""
        review = {
            "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview",
            "spec": {"token": token, "audiences": [audience]},
        }  # fmt: skip
        answer = await self.request("POST", "/apis/authentication.k8s.io/v1/tokenreviews", body=review)
        status = answer.get("status") or {}
        if not status.get("authenticated") or audience not in (status.get("audiences") or []):
            return ""
        name = str((status.get("user") or {}).get("username", ""))
        return name.removeprefix("system:serviceaccount:")

    async def close(self) -> None:
        if self._http is not None:
            await self._http.close()
