"""Kopf as the source of events, and nothing else.

Kopf runs in a thread with an event loop of its own: when it stops it cancels every task of its loop, and when it hangs
the workers, the Lease and the probes go on. Its handlers only put keys into our queue. It writes nothing: no
finalizer, no annotation, no event, no peering. When its watches die of an error it is started again here, with
back-off; what was missed meanwhile is in the list that each start begins with, and in the next resync.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import aiohttp
import kopf

from pinnace_operator.runtime.credentials import Credentials
from pinnace_operator.runtime.kube import Object, Resource
from pinnace_operator.runtime.settings import Settings
from pinnace_operator.runtime.watchdog import Pulse

log = logging.getLogger(__name__)

Heard = Callable[[Resource, Object], None]
LABEL = "app.kubernetes.io/managed-by=pinnace"


class EventSource:
    """Watches `resources` and reports each object that was listed, changed or deleted.

    Args:
        resources: what to watch; True means only objects with our label.
        heard: called in the loop that `run` runs in.
        restarted: called each time Kopf ended and is started again.
    """

    def __init__(
        self,
        *,
        settings: Settings,
        credentials: Credentials,
        resources: Mapping[Resource, bool],
        pulse: Pulse,
        heard: Heard,
        restarted: Callable[[], None],
    ) -> None:
        self._settings = settings
        self._credentials = credentials
        self._resources = resources
        self._pulse = pulse
        self._heard = heard
        self._restarted = restarted

    async def run(self) -> None:
        """Watch until cancelled."""
        self._pulse.expect(
            resource.path(namespace) for resource in self._resources for namespace in self._settings.namespaces
        )
        loop = asyncio.get_running_loop()
        pause = 1.0
        while True:
            stop, ended, started = threading.Event(), asyncio.Event(), loop.time()

            def watch(stop: threading.Event = stop, ended: asyncio.Event = ended) -> None:
                try:
                    asyncio.run(self._kopf(loop, stop))
                except Exception:
                    # Not lost: logged, counted by `restarted`, and the watchdog sees the silence if it goes on.
                    log.exception("The event source ended with an error")
                finally:
                    loop.call_soon_threadsafe(ended.set)

            threading.Thread(target=watch, name="event-source", daemon=True).start()
            try:
                await ended.wait()
            finally:
                stop.set()
            pause = 1.0 if loop.time() - started > 60 else min(pause * 2, 30)
            log.warning("The event source ended; it starts again in %.0f s", pause)
            self._restarted()
            await asyncio.sleep(pause)

    async def _kopf(self, loop: asyncio.AbstractEventLoop, stop: threading.Event) -> None:
        registry = kopf.OperatorRegistry()

        async def login(**_: object) -> kopf.AiohttpSession:
            session = self._credentials.session(middlewares=(self._authorize, self._listen))
            return kopf.AiohttpSession(server=self._credentials.server, aiohttp_session=session)

        kopf.on.login(registry=registry)(login)
        for resource in self._resources:

            async def on_event(body: kopf.Body, ours: Resource = resource, **_: Any) -> None:
                loop.call_soon_threadsafe(self._heard, ours, {"metadata": dict(body.metadata)})

            kopf.on.event(resource.group, resource.version, resource.plural, registry=registry, id="enqueue")(on_event)
        namespaces = self._settings.watch_namespaces
        await kopf.operator(
            registry=registry,
            settings=self._kopf_settings(),
            standalone=True,
            clusterwide=not namespaces,
            namespaces=namespaces,
            stop_flag=stop,
        )

    def _kopf_settings(self) -> kopf.OperatorSettings:
        settings = kopf.OperatorSettings()
        settings.posting.enabled = False
        settings.peering.standalone = True
        # What is watched is decided at start: needs no rights on CRDs and namespaces.
        settings.scanning.disabled = True
        # Explicit: without a server timeout a half-open connection can stay silent for hours; without the client's
        # a server that never closes keeps it open.
        settings.watching.server_timeout = self._settings.watch_server_timeout
        settings.watching.client_timeout = self._settings.watch_server_timeout + 30
        settings.watching.connect_timeout = 10
        settings.watching.inactivity_timeout = self._settings.watch_inactivity
        settings.watching.chunk_size = 500
        settings.networking.request_timeout = 60
        settings.networking.connect_timeout = 10
        settings.networking.error_backoffs = (0.2, 0.5, 1, 2, 4, 8)
        settings.queueing.idle_timeout = 1.0
        for resource, labelled in self._resources.items():
            if labelled:
                settings.watching.label_selectors[(resource.group, resource.version, resource.plural)] = LABEL
        return settings

    async def _authorize(
        self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        request.headers.update(self._credentials.headers())
        return await handler(request)

    async def _listen(
        self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        """Note every list and every chunk of a watch: that is how bookmarks are seen, which Kopf keeps to itself."""
        response = await handler(request)
        path = request.url.path
        if response.status == 200 and request.method == "GET":
            self._pulse.beat(path)
            if "watch" in request.url.query:
                response.content = _Heartbeat(response.content, lambda: self._pulse.beat(path))  # type: ignore[assignment]  # only iter_chunked is used on a stream
        return response


class _Heartbeat:
    """A response's stream that tells of each chunk."""

    def __init__(self, stream: aiohttp.StreamReader, beat: Callable[[], None]) -> None:
        self._stream = stream
        self._beat = beat

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    async def iter_chunked(self, size: int) -> AsyncIterator[bytes]:
        async for chunk in self._stream.iter_chunked(size):
            self._beat()
            yield chunk
