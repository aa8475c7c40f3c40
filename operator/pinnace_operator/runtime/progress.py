"""The progress server: pods report here over HTTPS; the latest report of each is kept in memory.

Lossy by design (docs/contracts.md, section 3): of a job the termination message is the durable result, and a gateway
reports again a second later.
"""

from __future__ import annotations

import datetime
import ssl
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import TypeVar

from aiohttp import web
from pydantic import BaseModel, ValidationError

from pinnace_operator.api.load import LoadReport
from pinnace_operator.api.progress import MAX_REPORT_BYTES, ProgressReport
from pinnace_operator.builders.toolsandbox import GATEWAY
from pinnace_operator.runtime import kube_errors
from pinnace_operator.runtime.gatekeeper import Gatekeeper, Refused
from pinnace_operator.runtime.loads import LatestLoads
from pinnace_operator.runtime.queue import Key, WorkQueue

MAX_EVENTS = 16
LOAD_SECONDS = 5.0
"""At the latest so long after a report of load that brings no news its ToolSandbox is looked at."""

Report = TypeVar("Report", bound=BaseModel)


class LatestReports:
    """The newest report of each job, by UID."""

    def __init__(self) -> None:
        self._latest: dict[str, tuple[ProgressReport, datetime.datetime]] = {}

    def put(self, report: ProgressReport) -> None:
        """Keep `report` unless a later attempt has reported already; earlier events that fit are kept with it.

        Raises:
            Refused: 409, the attempt is over.
        """
        known, _ = self.get(report.uid)
        if known and report.attempt < known.attempt:
            raise Refused(HTTPStatus.CONFLICT, f"attempt {report.attempt} is over: attempt {known.attempt} reports now")
        # Two reports can come before one reconcile; events are recorded once, however often they are seen.
        events = tuple(dict.fromkeys((*(known.events if known else ()), *report.events)))[-MAX_EVENTS:]
        received = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
        self._latest[report.uid] = report.model_copy(update={"events": events}), received

    def get(self, uid: str) -> tuple[ProgressReport | None, datetime.datetime | None]:
        """The newest report and when it was received."""
        return self._latest.get(uid, (None, None))

    def uids(self) -> set[str]:
        return set(self._latest)

    def forget(self, uids: Iterable[str]) -> int:
        """Drop the reports of jobs that are gone; how many there were."""
        return sum(self._latest.pop(uid, None) is not None for uid in uids)


class ProgressServer:
    """`POST /v1/progress` and `POST /v1/load` over HTTPS.

    Args:
        count: told the path's last part and the HTTP status of each report.
    """

    def __init__(
        self,
        *,
        gatekeeper: Gatekeeper,
        reports: LatestReports,
        loads: LatestLoads,
        leads: Callable[[], bool],
        queue: WorkQueue,
        count: Callable[[str, int], None] = lambda _what, _status: None,
    ) -> None:
        self._gatekeeper = gatekeeper
        self._reports = reports
        self._loads = loads
        self._leads = leads
        self._queue = queue
        self._count = count
        self._runner: web.AppRunner | None = None

    async def start(self, host: str, port: int, context: ssl.SSLContext) -> int:
        """Listen; returns the port."""
        app = web.Application(client_max_size=MAX_REPORT_BYTES)
        app.router.add_post("/v1/progress", self._post)
        app.router.add_post("/v1/load", self._post)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, host, port, ssl_context=context).start()
        return int(self._runner.addresses[0][1])

    async def stop(self) -> None:
        if self._runner:
            await self._runner.cleanup()
            self._runner = None

    async def _post(self, request: web.Request) -> web.Response:
        what = request.path.rsplit("/", 1)[-1]
        headers = {}
        try:
            await (self._accept_load(request) if what == "load" else self._accept_progress(request))
            status, message = HTTPStatus.OK, "accepted"
        except Refused as refusal:
            status, message = refusal.status, str(refusal)
        except kube_errors.KubeError as error:
            status, message = HTTPStatus.SERVICE_UNAVAILABLE, f"the API server could not be asked: {error.reason}"
        if status == HTTPStatus.SERVICE_UNAVAILABLE:
            headers["Retry-After"] = "2"
        self._count(what, status)
        return web.json_response({"message": message}, status=status, headers=headers)

    async def _accept_progress(self, request: web.Request) -> None:
        token, report = await self._read(request, ProgressReport, "a progress report")
        await self._gatekeeper.admit(token, namespace=report.namespace, uid=report.uid)
        self._reports.put(report)
        self._queue.add(Key(report.kind, report.namespace, report.name))

    async def _accept_load(self, request: web.Request) -> None:
        token, report = await self._read(request, LoadReport, "a report of load")
        reporter = await self._gatekeeper.admit(token, namespace=report.namespace, uid=report.uid)
        if (reporter.role, reporter.pod) != (GATEWAY, report.pod):
            raise Refused(HTTPStatus.FORBIDDEN, "this token's pod is not the gateway that the report names")
        key = Key(report.kind, report.namespace, report.name)
        if self._loads.put(report):
            self._queue.add(key)
        else:
            self._queue.add_after(key, LOAD_SECONDS)

    async def _read(self, request: web.Request, model: type[Report], what: str) -> tuple[str, Report]:
        """The token and the report.

        Raises:
            Refused: not the leader, no token, too large, or not such a report.
        """
        if not self._leads():
            raise Refused(HTTPStatus.SERVICE_UNAVAILABLE, "this replica is not the leader: try again")
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise Refused(HTTPStatus.UNAUTHORIZED, "a bearer token is missing")
        try:
            body = await request.read()
        except web.HTTPRequestEntityTooLarge:
            raise Refused(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"a report has at most {MAX_REPORT_BYTES} bytes"
            ) from None
        try:
            return token, model.model_validate_json(body)
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False)[0]
            where = ".".join(str(each) for each in first["loc"])
            raise Refused(HTTPStatus.BAD_REQUEST, f"not {what}: {where}: {first['msg']}") from None
