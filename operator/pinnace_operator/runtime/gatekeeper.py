"""Who may report to the operator: pods of Pinnace's resources, each about its own one."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus

from pinnace_operator.runtime.kube import PODS, Kube
from pinnace_operator.runtime.owners import ROLE_LABEL, UID_LABEL

AUDIENCE = "pinnace"
_POD_NAME, _POD_UID = "authentication.kubernetes.io/pod-name", "authentication.kubernetes.io/pod-uid"


class Refused(Exception):
    """A report that is not accepted: the HTTP status, and a sentence for the pod's log."""

    def __init__(self, status: HTTPStatus, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Reporter:
    """Who a token speaks for: one pod of one resource."""

    namespace: str
    uid: str
    pod: str
    role: str


class Gatekeeper:
    """Finds out which resource a token speaks for, by TokenReview and the labels of the token's pod.

    Verdicts are kept for `keep` seconds under the token's hash; the token itself is never kept or logged.
    """

    def __init__(self, kube: Kube, *, keep: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._kube = kube
        self._keep = keep
        self._clock = clock
        self._known: dict[bytes, tuple[float, Reporter]] = {}

    async def admit(self, token: str, *, namespace: str, uid: str) -> Reporter:
        """The pod that the token speaks for, if it belongs to the resource of that UID.

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
        if (namespace, uid) != (reporter.namespace, reporter.uid):
            raise Refused(
                HTTPStatus.FORBIDDEN, "this token's pod does not belong to the resource that the report names"
            )
        return reporter

    async def _review(self, token: str) -> Reporter:
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
        labels = meta.get("labels") or {}
        uid = labels.get(UID_LABEL, "")
        if meta.get("uid") != pod_uid or not uid:
            raise Refused(HTTPStatus.FORBIDDEN, f"the token's pod {pod_name} is gone or no pod of a Pinnace resource")
        return Reporter(parts[2], uid, pod_name, labels.get(ROLE_LABEL, ""))
