"""A thin client of the API server: the few verbs the operator needs, typed errors, and a fence before each write."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import aiohttp

from pinnace_operator.runtime import kube_errors
from pinnace_operator.runtime.credentials import Credentials

Object = dict[str, Any]
FIELD_MANAGER = "pinnace-operator"
_FENCED = "fenced"


@dataclass(frozen=True)
class Resource:
    """One API resource: where its objects live."""

    group: str
    version: str
    plural: str
    kind: str

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str | None, name: str | None = None, subresource: str | None = None) -> str:
        """The URL path of a collection, an object or a subresource; `namespace` None is cluster-wide."""
        parts = [f"apis/{self.group}" if self.group else "api", self.version]
        parts += ["namespaces", quote(namespace)] if namespace else []
        parts += [self.plural, *[quote(each) for each in (name, subresource) if each]]
        return "/" + "/".join(parts)


PODS = Resource("", "v1", "pods", "Pod")
EVENTS = Resource("", "v1", "events", "Event")
SECRETS = Resource("", "v1", "secrets", "Secret")
LEASES = Resource("coordination.k8s.io", "v1", "leases", "Lease")
JOBSETS = Resource("jobset.x-k8s.io", "v1alpha2", "jobsets", "JobSet")
TOKEN_REVIEWS = Resource("authentication.k8s.io", "v1", "tokenreviews", "TokenReview")


class Kube:
    """The API server as the operator sees it.

    Args:
        credentials: where the server is and who we are.
        fence: raises `NotLeader` unless this replica may write now; called directly before each write is sent.
        count: told verb and kind of each write that was sent (for metrics).
        timeout: seconds for one request, from connect to the last byte. The Lease's margin must be longer, or a write
            that the fence let through could reach the server after another replica took over.
    """

    def __init__(
        self,
        credentials: Credentials,
        *,
        fence: Callable[[], None],
        count: Callable[[str, str], None] = lambda _verb, _kind: None,
        timeout: float = 4,
    ) -> None:
        self._credentials = credentials
        self._fence = fence
        self._count = count
        self._timeout = aiohttp.ClientTimeout(total=timeout, sock_connect=min(timeout, 3))
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        if self._session:
            await self._session.close()

    async def get(self, resource: Resource, namespace: str | None, name: str) -> Object | None:
        """The object, or None when there is none of that name."""
        try:
            return await self._request("GET", resource.path(namespace, name))
        except kube_errors.NotFound:
            return None

    async def list(
        self, resource: Resource, namespace: str | None, *, labels: str = "", fields: str = "", page: int = 200
    ) -> AsyncIterator[Object]:
        """All objects, read in pages of `page`.

        Raises:
            Gone: the continue token grew too old between two pages; the caller starts again.
        """
        query = {"limit": str(page), "labelSelector": labels, "fieldSelector": fields}
        while True:
            found = await self._request("GET", resource.path(namespace), query=query)
            for item in found.get("items") or []:
                yield item
            query["continue"] = (found.get("metadata") or {}).get("continue") or ""
            if not query["continue"]:
                return

    async def exists(self, resource: Resource) -> bool:
        """Whether the API server serves this resource (is its CRD installed?)."""
        try:
            found = await self._request("GET", f"/apis/{resource.api_version}")
        except kube_errors.NotFound:
            return False
        return any(each["name"] == resource.plural for each in found.get("resources") or [])

    async def apply(self, resource: Resource, manifest: Mapping[str, Any], *, status: bool = False) -> Object:
        """Server-side apply with our field manager, by force; to the status subresource if `status`.

        Put `metadata.uid` into the manifest and an object that was deleted, or created anew, is a `Conflict` instead.
        """
        meta = manifest["metadata"]
        path = resource.path(meta.get("namespace"), meta["name"], "status" if status else None)
        self._before_write("apply_status" if status else "apply", resource)
        return await self._request(
            "PATCH", path, query={"fieldManager": FIELD_MANAGER, "force": "true"},
            body=manifest, content_type="application/apply-patch+yaml", fenced=True,
        )  # fmt: skip

    async def create(self, resource: Resource, manifest: Mapping[str, Any]) -> Object:
        self._before_write("create", resource)
        path = resource.path(manifest["metadata"].get("namespace"))
        return await self._request("POST", path, query={"fieldManager": FIELD_MANAGER}, body=manifest, fenced=True)

    async def replace(self, resource: Resource, manifest: Mapping[str, Any]) -> Object:
        """PUT; `metadata.resourceVersion` in the manifest makes it a compare-and-swap."""
        self._before_write("replace", resource)
        return await self._put(resource, manifest, fenced=True)

    async def delete(
        self, resource: Resource, namespace: str, name: str, *, uid: str, propagation: str = "Background"
    ) -> None:
        """Delete the object if it still has this UID; one that is gone already is fine.

        Raises:
            Conflict: another object has the name now.
        """
        self._before_write("delete", resource)
        body = {
            "apiVersion": "v1", "kind": "DeleteOptions",
            "preconditions": {"uid": uid}, "propagationPolicy": propagation,
        }  # fmt: skip
        try:
            await self._request("DELETE", resource.path(namespace, name), body=body, fenced=True)
        except kube_errors.NotFound:
            return

    async def review_token(self, token: str, audience: str) -> Object:
        """The `status` of a TokenReview. It changes nothing, so the fence does not apply."""
        body = {
            "apiVersion": TOKEN_REVIEWS.api_version, "kind": TOKEN_REVIEWS.kind,
            "spec": {"token": token, "audiences": [audience]},
        }  # fmt: skip
        reviewed = await self._request("POST", TOKEN_REVIEWS.path(None), body=body)
        return dict(reviewed.get("status") or {})

    async def get_lease(self, namespace: str, name: str) -> Object | None:
        return await self.get(LEASES, namespace, name)

    async def create_lease(self, manifest: Mapping[str, Any]) -> Object:
        """Leases are written without the fence, which they are the ground of."""
        return await self._request("POST", LEASES.path(manifest["metadata"]["namespace"]), body=manifest)

    async def replace_lease(self, manifest: Mapping[str, Any]) -> Object:
        return await self._put(LEASES, manifest)

    async def _put(self, resource: Resource, manifest: Mapping[str, Any], *, fenced: bool = False) -> Object:
        meta = manifest["metadata"]
        path = resource.path(meta.get("namespace"), meta["name"])
        return await self._request("PUT", path, body=manifest, fenced=fenced)

    def _fence_at_the_wire(self) -> aiohttp.TraceConfig:
        """Check the fence again when the connection is there and the request goes out next.

        Connecting can take long (and so can a process that is frozen meanwhile); aiohttp also sends a request again by
        itself when a kept connection turns out to be closed.
        """

        async def check(_: aiohttp.ClientSession, context: SimpleNamespace, __: object) -> None:
            if context.trace_request_ctx == _FENCED:
                self._fence()

        trace = aiohttp.TraceConfig()
        trace.on_connection_create_end.append(check)
        trace.on_connection_reuseconn.append(check)
        return trace

    def _before_write(self, verb: str, resource: Resource) -> None:
        self._fence()
        self._count(verb, resource.kind)

    async def _request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        content_type: str = "application/json",
        fenced: bool = False,
    ) -> Object:
        if self._session is None:
            self._session = self._credentials.session(trace_configs=[self._fence_at_the_wire()])
        what = f"{method} {path}"
        headers = {"Content-Type": content_type} if body is not None else {}
        data = json.dumps(body).encode() if body is not None else None
        params = {name: value for name, value in (query or {}).items() if value}
        try:
            async with self._session.request(
                method, self._credentials.server + path, params=params, data=data,
                headers=headers | self._credentials.headers(), timeout=self._timeout,
                trace_request_ctx=_FENCED if fenced else None,
            ) as response:  # fmt: skip
                text = await response.read()
                status, retry_after = response.status, response.headers.get("Retry-After")
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            detail = str(error) or type(error).__name__
            raise kube_errors.Unreachable(what, f"no answer from {self._credentials.server}: {detail}") from error
        try:
            parsed = json.loads(text) if text else {}
        except ValueError:
            parsed = {"message": text[:500].decode(errors="replace")}
            status = status if status >= 300 else 502  # a proxy answered in the API server's place
        if status >= 300:
            raise kube_errors.from_response(what, status, parsed, retry_after)
        return dict(parsed)
