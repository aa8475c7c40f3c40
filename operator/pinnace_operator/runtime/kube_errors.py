"""What can go wrong between the operator and the API server, as types."""

from __future__ import annotations

from typing import Any


class KubeError(Exception):
    """A request to the API server failed. `retry_after` is what the server asked for, in seconds."""

    def __init__(self, what: str, message: str, *, status: int = 0, reason: str = "", retry_after: float = 0) -> None:
        super().__init__(f"{what}: {message}")
        self.status = status
        self.reason = reason
        self.retry_after = retry_after


class Unreachable(KubeError):
    """No answer: refused, reset, or timed out. A write may or may not have happened."""


class NotFound(KubeError):
    """404."""


class Conflict(KubeError):
    """409: somebody else was faster, or the object's UID is not the one expected."""


class Gone(KubeError):
    """410: a continue token or a resourceVersion is too old; list again."""


class Forbidden(KubeError):
    """401 or 403: the operator's RBAC rules or credentials are not enough."""


class Invalid(KubeError):
    """400 or 422: the API server refuses the object; the same request will fail again."""


class TooManyRequests(KubeError):
    """429: wait for `retry_after` seconds."""


class ServerFault(KubeError):
    """5xx."""


class NotLeader(Exception):
    """A write was refused by the fence: this replica does not hold the Lease (any more)."""


_BY_STATUS: dict[int, type[KubeError]] = {
    400: Invalid, 401: Forbidden, 403: Forbidden, 404: NotFound, 409: Conflict, 410: Gone, 422: Invalid,
    429: TooManyRequests,
}  # fmt: skip


def from_response(what: str, status: int, body: Any, retry_after: str | None) -> KubeError:
    """The error for a response of 300 or above; `body` is the API server's Status object where it sent one."""
    details = body if isinstance(body, dict) else {}
    message = str(details.get("message") or f"HTTP {status}")
    kind = _BY_STATUS.get(status, ServerFault if status >= 500 else KubeError)
    seconds = retry_after or (details.get("details") or {}).get("retryAfterSeconds") or 0
    try:
        wait = float(seconds)
    except ValueError:  # an HTTP date, which the API server never sends
        wait = 1.0
    return kind(what, message[:2000], status=status, reason=str(details.get("reason") or ""), retry_after=wait)
