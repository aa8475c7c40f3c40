"""A proxy between the operator and a real API server that breaks things on demand and writes down every write.

It listens on loopback without TLS; towards the API server it is the user of the kubeconfig it was given. It runs in a
thread of its own, so that tests stay plain functions.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import logging
import random
import ssl
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path

import aiohttp
import yaml
from aiohttp import web

_WRITES = {"POST", "PUT", "PATCH", "DELETE"}
_NOT_STATE = ("/leases", "/tokenreviews", "/selfsubjectaccessreviews")
_REASONS = {409: "Conflict", 410: "Expired", 429: "TooManyRequests", 500: "InternalError", 503: "ServiceUnavailable"}

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Call:
    """One request as it came in."""

    method: str
    path: str
    watch: bool = False

    @property
    def is_write(self) -> bool:
        """A write of cluster state: Leases and reviews are not."""
        return self.method in _WRITES and not any(each in self.path for each in _NOT_STATE)

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


@dataclass
class Fault:
    """Answer `status` to requests that `match`: the next `count` of them, or each with probability `share`."""

    status: int
    match: Callable[[Call], bool]
    count: int | None = None
    share: float = 1.0
    retry_after: int | None = None
    hits: int = 0


@dataclass
class Write:
    """A write that came in, when (monotonic), and what the API server answered (0 while it has not)."""

    call: Call
    status: int = 0
    came: float = field(default_factory=time.monotonic)


@dataclass
class FaultProxy:
    """See the module; `kubeconfig` is what the operator is given.

    `before` and `after` are called with the number of each write (from 1) right before it is forwarded and right
    after the API server has answered; `before` returning False keeps it from being forwarded.
    """

    upstream: Path
    directory: Path
    seed: int = 7
    before: Callable[[int], bool] = lambda _number: True
    after: Callable[[int], object] = lambda _number: None
    faults: list[Fault] = field(default_factory=list)
    writes: list[Write] = field(default_factory=list)
    requests: int = 0
    injected: int = 0
    cut: bool = False
    delay: float = 0.0

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)  # noqa: S311 -- faults that can be repeated, no secret
        self._streams: dict[int, web.Request] = {}
        self._port = 0
        self._started = threading.Event()
        self._stopped: asyncio.Event | None = None
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)

    @property
    def kubeconfig(self) -> Path:
        """A kubeconfig that leads here."""
        path = self.directory / f"proxy-{self._port}.kubeconfig"
        if not path.exists():
            config = {
                "apiVersion": "v1", "kind": "Config", "current-context": "proxy",
                "users": [{"name": "proxy", "user": {}}],
                "contexts": [{"name": "proxy", "context": {"cluster": "proxy", "user": "proxy"}}],
                "clusters": [{"name": "proxy", "cluster": {"server": f"http://127.0.0.1:{self._port}"}}],
            }  # fmt: skip
            path.write_text(yaml.safe_dump(config))
        return path

    def start(self) -> None:
        self._thread.start()
        if not self._started.wait(10):
            raise RuntimeError("the fault proxy did not start within 10 s")

    def stop(self) -> None:
        if self._stopped:
            self._loop.call_soon_threadsafe(self._stopped.set)
        self._thread.join(10)

    def fail(
        self,
        status: int,
        match: Callable[[Call], bool] = lambda _call: True,
        *,
        count: int | None = None,
        share: float = 1.0,
        retry_after: int | None = None,
    ) -> Fault:
        """Inject a fault until it is used up or removed by `heal`."""
        fault = Fault(status, match, count, share, retry_after)
        self.faults.append(fault)
        return fault

    def heal(self) -> None:
        """Behave as a plain proxy from now on."""
        self.faults.clear()
        self.cut = False
        self.delay = 0.0

    def drop_watches(self) -> int:
        """Break the connection of each open watch; how many there were."""

        async def drop() -> int:
            streams = list(self._streams.values())
            for request in streams:
                if request.transport:
                    request.transport.abort()
            return len(streams)

        return asyncio.run_coroutine_threadsafe(drop(), self._loop).result(10)

    @property
    def open_watches(self) -> int:
        return len(self._streams)

    async def _run(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopped = asyncio.Event()
        server, context = upstream(self.upstream)
        connector = aiohttp.TCPConnector(ssl=context, limit=0)
        async with aiohttp.ClientSession(connector=connector, auto_decompress=False) as session:

            async def handle(request: web.Request) -> web.StreamResponse:
                return await self._handle(request, session, server)

            app = web.Application(client_max_size=8 * 2**20)
            app.router.add_route("*", "/{path:.*}", handle)
            runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            self._port = runner.addresses[0][1]
            self._started.set()
            await self._stopped.wait()
            await runner.cleanup()

    async def _handle(self, request: web.Request, session: aiohttp.ClientSession, server: str) -> web.StreamResponse:
        call = Call(request.method, request.path, watch="watch" in request.query)
        self.requests += 1
        body = await request.read()
        if self.delay:
            await asyncio.sleep(self.delay)
        if self.cut:
            return self._abort(request)
        fault = self._fault(call)
        if fault:
            return self._answer(call, fault)
        record = Write(call)
        if call.is_write:
            self.writes.append(record)
            number = len(self.writes)
            if not self.before(number):
                return self._abort(request)
        dropped = ("host", "connection", "content-length")
        headers = {name: value for name, value in request.headers.items() if name.lower() not in dropped}
        try:
            async with session.request(
                request.method, server + request.raw_path, data=body or None, headers=headers,
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=5),
            ) as found:  # fmt: skip
                if call.watch:
                    return await self._stream(request, found)
                answer = await found.read()
        except (aiohttp.ClientError, OSError):
            return self._abort(request)
        if call.is_write:
            record.status = found.status
            self.after(number)
        kept = {
            name: value
            for name, value in found.headers.items()
            if name in ("Content-Type", "Retry-After", "Content-Encoding")
        }
        return web.Response(status=found.status, body=answer, headers=kept)

    async def _stream(self, request: web.Request, found: aiohttp.ClientResponse) -> web.StreamResponse:
        response = web.StreamResponse(
            status=found.status, headers={"Content-Type": found.headers.get("Content-Type", "application/json")}
        )
        self._streams[id(request)] = request
        try:
            await response.prepare(request)
            with contextlib.suppress(ConnectionError, aiohttp.ClientError):
                async for chunk in found.content.iter_any():
                    await response.write(chunk)
        finally:
            del self._streams[id(request)]
        return response

    def _fault(self, call: Call) -> Fault | None:
        for fault in self.faults:
            if not fault.match(call) or (fault.count is not None and fault.hits >= fault.count):
                continue
            if self._random.random() < fault.share:
                fault.hits += 1
                self.injected += 1
                return fault
        return None

    @staticmethod
    def _answer(call: Call, fault: Fault) -> web.StreamResponse:
        status = {
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": fault.status,
            "reason": _REASONS.get(fault.status, ""), "message": f"injected {HTTPStatus(fault.status).phrase}",
        }  # fmt: skip
        if call.watch and fault.status == HTTPStatus.GONE:  # a watch is told inside its stream
            line = json.dumps({"type": "ERROR", "object": status}) + "\n"
            return web.Response(text=line, content_type="application/json")
        headers = {"Retry-After": str(fault.retry_after)} if fault.retry_after is not None else {}
        return web.json_response(status, status=fault.status, headers=headers)

    @staticmethod
    def _abort(request: web.Request) -> web.StreamResponse:
        if request.transport:
            request.transport.abort()
        raise ConnectionResetError("cut by the fault proxy")


def upstream(kubeconfig: Path) -> tuple[str, ssl.SSLContext]:
    """The server of a kubeconfig and a TLS context with its user's client certificate."""
    config = yaml.safe_load(kubeconfig.read_text())
    cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
    with tempfile.TemporaryDirectory() as directory:

        def file(source: dict[str, str], name: str) -> str:
            if name in source:
                return source[name]
            path = Path(directory, name)
            path.write_bytes(base64.b64decode(source[f"{name}-data"]))
            return str(path)

        context = ssl.create_default_context(cafile=file(cluster, "certificate-authority"))
        context.load_cert_chain(file(user, "client-certificate"), file(user, "client-key"))
    return cluster["server"], context


@contextmanager
def fault_proxy(upstream: Path, directory: Path) -> Iterator[FaultProxy]:
    """A running proxy in front of the API server of kubeconfig `upstream`."""
    proxy = FaultProxy(upstream, directory)
    proxy.start()
    try:
        yield proxy
    finally:
        proxy.stop()
