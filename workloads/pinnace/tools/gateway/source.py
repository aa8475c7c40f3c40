"""Where the configuration and the addresses come from: a file, or the API server."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from pinnace.tools.gateway.kube import Kube, KubeRefused
from pinnace.tools.gateway.state import Endpoints

log = logging.getLogger(__name__)

_POLL = 0.2  # seconds between two looks at a file
_AGAIN = 1.0  # seconds between two openings of a watch at least
SERVICE = "kubernetes.io/service-name"


async def from_file(path: Path) -> AsyncIterator[bytes]:
    """The document now and whenever the file changes. A file that is missing for a moment is being replaced."""
    seen: tuple[int, int, int] | None = None
    while True:
        try:
            status = await asyncio.to_thread(path.stat)
            mark = (status.st_mtime_ns, status.st_size, status.st_ino)
            if mark != seen:
                content = await asyncio.to_thread(path.read_bytes)
                seen = mark
                yield content
        except OSError as error:
            if seen is None:
                log.warning("%s can't be read: %s", path, error)
        await asyncio.sleep(_POLL)


async def from_configmap(kube: Kube, name: str, key: str = "gateway.json") -> AsyncIterator[bytes]:
    """The document in a ConfigMap, now and whenever it changes; a ConfigMap that is gone changes nothing."""
    path = f"/api/v1/namespaces/{kube.namespace}/configmaps"
    async for kind, found in _follow(kube, path, f"fieldSelector=metadata.name%3D{name}"):
        for each in found.get("items") or [] if kind == "LIST" else [found]:
            text = (each.get("data") or {}).get(key)
            if text is not None and kind != "DELETED":
                yield text.encode()


async def endpoints(kube: Kube) -> AsyncIterator[Endpoints]:
    """The ready addresses of all services of the namespace, now and whenever they change."""
    path = f"/apis/discovery.k8s.io/v1/namespaces/{kube.namespace}/endpointslices"
    slices: dict[str, dict[str, Any]] = {}
    last: Endpoints | None = None
    async for kind, found in _follow(kube, path, f"labelSelector={SERVICE}"):
        if kind == "LIST":
            slices = {each["metadata"]["name"]: each for each in found.get("items") or []}
        elif kind == "DELETED":
            slices.pop(found["metadata"]["name"], None)
        else:
            slices[found["metadata"]["name"]] = found
        now = ready(slices.values())
        if now != last:
            last = now
            yield now


async def _follow(kube: Kube, path: str, selector: str) -> AsyncIterator[tuple[str, dict[str, Any]]]:
    """Watches for ever. A watch that ends is opened again at once, unless it has just been opened."""
    while True:
        opened = time.monotonic()
        try:
            async for each in kube.watch(path, selector):
                yield each
        except KubeRefused as error:
            log.warning("%s can't be watched, what is known stays: %s", path.rpartition("/")[2], error)
        await asyncio.sleep(max(0.0, opened + _AGAIN - time.monotonic()))


def ready(slices: Any) -> dict[str, dict[str, str]]:
    """Service → address → pod name, of the endpoints that are ready (unknown counts as ready, as Kubernetes says)."""
    found: dict[str, dict[str, str]] = {}
    for each in slices:
        service = (each["metadata"].get("labels") or {}).get(SERVICE, "")
        for endpoint in each.get("endpoints") or []:
            if (endpoint.get("conditions") or {}).get("ready") is False:
                continue
            name = str((endpoint.get("targetRef") or {}).get("name", ""))
            for address in endpoint.get("addresses") or []:
                found.setdefault(service, {})[address] = name
    return found
