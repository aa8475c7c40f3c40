"""The progress server: pods report here over HTTPS; the latest report of each job is kept in memory.

Lossy by design (docs/contracts.md, section 3): the termination message is the durable result.
"""

from __future__ import annotations

import datetime
import hashlib
import ssl
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from http import HTTPStatus

from aiohttp import web
from pydantic import ValidationError

from pinnace_operator.api.progress import MAX_REPORT_BYTES, ProgressReport
from pinnace_operator.runtime import kube_errors
from pinnace_operator.runtime.kube import PODS, Kube
from pinnace_operator.runtime.owners import UID_LABEL
from pinnace_operator.runtime.queue import Key

AUDIENCE = "pinnace"
MAX_EVENTS = 16
_POD_NAME, _POD_UID = "authentication.kubernetes.io/pod-name", "authentication.kubernetes.io/pod-uid"


class Refused(Exception):
    """A report that is not accepted: the HTTP status, and a sentence for the pod's log."""

    def __init__(self, status: HTTPStatus, message: str) -> None:
        super().__init__(message)
        self.status = status


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


@dataclass(frozen=True)
class _Reporter:
    """Who a token speaks for: one pod of one job."""

    namespace: str
    uid: str


class Gatekeeper:
    """Finds out which job a token speaks for, by TokenReview and the labels of the token's pod.

    Verdicts are kept for `keep` seconds under the token's hash; the token itself is never kept or logged.
    """

    def __init__(self, kube: Kube, *, keep: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._kube = kube
        self._keep = keep
        self._clock = clock
        self._known: dict[bytes, tuple[float, _Reporter]] = {}

    async def admit(self, token: str, report: ProgressReport) -> None:
        """Return if the token's pod belongs to the job that `report` names.

        Raises:
            Refused: 401 for a token that is not valid for us, 403 for a pod of something else.
            KubeError: the API server could not be asked.
        """
        digest = hashlib.sha256(token.encode()).digest()
        now = self._clock()
        until, reporter = self._known.get(digest, (0.0, None))
        if reporter is None or now >= until:
            reporter = await self._review(token)
            self._known = {each: entry for each, entry in self._known.items() if entry[0] > now}
            self._known[digest] = (now + self._keep, reporter)
        if (report.namespace, report.uid) != (reporter.namespace, reporter.uid):
            raise Refused(HTTPStatus.FORBIDDEN, "this token's pod does not belong to the job that the report names")

    async def _review(self, token: str) -> _Reporter:
        status = await self._kube.review_token(token, AUDIENCE)
        if not status.get("authenticated") or AUDIENCE not in (status.get("audiences") or []):
            raise Refused(HTTPStatus.UNAUTHORIZED, f"the token is not valid for audience {AUDIENCE!r}")
        user = status.get("user") or {}
        parts = str(user.get("username", "")).split(":")  # system:serviceaccount:<namespace>:<name>
        extra = user.get("extra") or {}
        pod_name, pod_uid = (extra.get(_POD_NAME) or [""])[0], (extra.get(_POD_UID) or [""])[0]
        if len(parts) != 4 or parts[:2] != ["system", "serviceaccount"] or not pod_name:
            raise Refused(HTTPStatus.FORBIDDEN, "the token is not bound to a pod")
        pod = await self._kube.get(PODS, parts[2], pod_name)
        meta = (pod or {}).get("metadata") or {}
        uid = (meta.get("labels") or {}).get(UID_LABEL, "")
        if meta.get("uid") != pod_uid or not uid:
            raise Refused(HTTPStatus.FORBIDDEN, f"the token's pod {pod_name} is gone or no pod of a Pinnace job")
        return _Reporter(parts[2], uid)


class ProgressServer:
    """`POST /v1/progress` over HTTPS."""

    def __init__(
        self,
        *,
        gatekeeper: Gatekeeper,
        reports: LatestReports,
        leads: Callable[[], bool],
        enqueue: Callable[[Key], None],
        count: Callable[[int], None] = lambda _status: None,
    ) -> None:
        self._gatekeeper = gatekeeper
        self._reports = reports
        self._leads = leads
        self._enqueue = enqueue
        self._count = count
        self._runner: web.AppRunner | None = None

    async def start(self, host: str, port: int, context: ssl.SSLContext) -> int:
        """Listen; returns the port."""
        app = web.Application(client_max_size=MAX_REPORT_BYTES)
        app.router.add_post("/v1/progress", self._post)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, host, port, ssl_context=context).start()
        return int(self._runner.addresses[0][1])

    async def stop(self) -> None:
        if self._runner:
            await self._runner.cleanup()
            self._runner = None

    async def _post(self, request: web.Request) -> web.Response:
        headers = {}
        try:
            await self._accept(request)
            status, message = HTTPStatus.OK, "accepted"
        except Refused as refusal:
            status, message = refusal.status, str(refusal)
        except kube_errors.KubeError as error:
            status, message = HTTPStatus.SERVICE_UNAVAILABLE, f"the API server could not be asked: {error.reason}"
        if status == HTTPStatus.SERVICE_UNAVAILABLE:
            headers["Retry-After"] = "2"
        self._count(status)
        return web.json_response({"message": message}, status=status, headers=headers)

    async def _accept(self, request: web.Request) -> None:
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
            report = ProgressReport.model_validate_json(body)
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False)[0]
            where = ".".join(str(each) for each in first["loc"])
            raise Refused(HTTPStatus.BAD_REQUEST, f"not a progress report: {where}: {first['msg']}") from None
        await self._gatekeeper.admit(token, report)
        self._reports.put(report)
        self._enqueue(Key(report.kind, report.namespace, report.name))
