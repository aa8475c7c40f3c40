"""Tells the operator how a job is getting on (docs/contracts.md §3). Lossy by design; never slows or breaks the job."""

from __future__ import annotations

import logging
import os
import ssl
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, Literal

from pinnace_operator.api.evalresult import BenchmarkResult
from pinnace_operator.api.merge_status import MergeReport
from pinnace_operator.api.progress import ProgressReport
from pinnace_operator.api.status import CheckpointRef
from pydantic import ValidationError

if TYPE_CHECKING:
    import httpx

log = logging.getLogger(__name__)

TOKEN = Path("/var/run/secrets/pinnace/token")
_MAX_EVENTS = 16  # as the server accepts; with 64 metrics a report stays below its 64 KiB
_MAX_METRICS = 64
_MAX_WAIT = 60.0
_CLOSING_WAIT = 0.2


@dataclass(frozen=True)
class Identity:
    """Who reports: the job and its attempt."""

    kind: str
    namespace: str
    name: str
    uid: str
    attempt: int


@dataclass(frozen=True)
class Endpoint:
    """Where to report. `ca` is PEM text; None: the system's CAs. The kubelet renews the token: it is read each time."""

    url: str
    ca: str | None = None
    token: Path = TOKEN


class Progress:
    """Sends the newest state, at most every `interval` seconds, from a thread of its own.

    `report` and `event` return at once and never raise. Without an endpoint nothing is sent. A report that can't be
    delivered is replaced by the next one; events are kept (the last 16) until they are delivered.
    """

    def __init__(self, identity: Identity, endpoint: Endpoint | None, *, interval: float = 5) -> None:
        self._identity = identity
        self._endpoint = endpoint
        self._interval = interval
        self._state: dict[str, Any] = {}
        self._events: deque[dict[str, str]] = deque(maxlen=_MAX_EVENTS)
        self._news = threading.Condition()
        self._fresh = False
        self._closing = False
        self._retrying = False
        self._given_up = False
        self._thread: threading.Thread | None = None

    @classmethod
    def from_env(cls, identity: Identity, environ: Mapping[str, str] = os.environ) -> Progress:
        """Reads `PINNACE_PROGRESS_URL` and `PINNACE_PROGRESS_CA`."""
        url = environ.get("PINNACE_PROGRESS_URL")
        return cls(identity, Endpoint(url, environ.get("PINNACE_PROGRESS_CA") or None) if url else None)

    def report(
        self,
        *,
        step: int,
        total_steps: int | None = None,
        eta_seconds: int | None = None,
        throughput: str | None = None,
        metrics: Mapping[str, str] | None = None,
        checkpoint: CheckpointRef | None = None,
        merge: MergeReport | None = None,
        benchmarks: Sequence[BenchmarkResult] = (),
    ) -> None:
        """The newest state.

        Args:
            step: optimizer steps (of a MergeJob: bytes) done.
            total_steps: steps (bytes) in all.
            eta_seconds: estimated seconds to the end.
            throughput: with unit, `812 tokens/s`.
            metrics: decimal values by name; the first 64 are sent.
            checkpoint: the newest durable one; the last one given stays.
            merge: of a MergeJob, what it does and has done; likewise.
            benchmarks: of an evaluation, over all shards.
        """
        state = {"step": step, "total_steps": total_steps, "eta_seconds": eta_seconds, "throughput": throughput}
        with self._news:
            self._state.update({name: value for name, value in state.items() if value is not None})
            if metrics is not None:
                self._state["metrics"] = [{"name": name, "value": value} for name, value in metrics.items()][
                    :_MAX_METRICS
                ]
            if checkpoint is not None:
                self._state["checkpoint"] = checkpoint
            if merge is not None:
                self._state["merge"] = merge
            if benchmarks:
                self._state["benchmarks"] = tuple(benchmarks)
        self._wake()

    def event(self, kind: Literal["Normal", "Warning"], reason: str, message: str) -> None:
        """Something a person should see in `kubectl describe`."""
        with self._news:
            self._events.append({"type": kind, "reason": reason, "message": message[:1024] or reason})
        self._wake()

    def close(self, timeout: float = 5) -> None:
        """Sends what is left, for at most `timeout` seconds."""
        with self._news:
            self._closing = True
            self._news.notify_all()
            thread = self._thread
        if thread is not None:
            thread.join(timeout)

    def _wake(self) -> None:
        if self._endpoint is None or self._given_up:
            return
        with self._news:
            self._fresh = True
            if self._thread is None and not self._closing:
                self._thread = threading.Thread(target=self._run, args=(self._endpoint,), name="progress", daemon=True)
                self._thread.start()
            self._news.notify_all()

    def _run(self, endpoint: Endpoint) -> None:
        try:
            with _client(endpoint) as client:
                wait = 0.0
                while self._next_report_is_due(wait):
                    wait = self._send(client, endpoint)
        except Exception as error:  # noqa: BLE001 - reporting may fail, training may not
            log.warning("progress is not reported any more: %s: %s", type(error).__name__, error)
            self._given_up = True

    def _next_report_is_due(self, wait: float) -> bool:
        """Waits `wait` seconds (while closing: briefly, before a retry), then for news. False: nothing more to send."""
        now = monotonic()
        with self._news:
            while (rest := now + (min(wait, _CLOSING_WAIT) if self._closing else wait) - monotonic()) > 0:
                if self._closing and not self._retrying:
                    break
                self._news.wait(rest)
            while not self._fresh and not self._closing:
                self._news.wait()
            return self._fresh and not self._given_up

    def _send(self, client: httpx.Client, endpoint: Endpoint) -> float:
        """Sends once and returns the seconds to wait before the next report."""
        import httpx

        with self._news:
            self._fresh = self._retrying = False
            sent = len(self._events)
        try:
            body = self._body()
            token = endpoint.token.read_text().strip()
            answer = client.post(
                "/v1/progress",
                content=body,
                headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
            )
        except ValidationError as error:
            log.warning("a progress report is not valid and was not sent: %s", error)
            return self._interval
        except (OSError, httpx.HTTPError) as error:
            log.info("progress was not delivered: %s: %s", type(error).__name__, error)
            return self._try_again(self._interval)
        if answer.is_success:
            with self._news:
                for _ in range(min(sent, len(self._events))):
                    self._events.popleft()
            return self._interval
        if answer.status_code == httpx.codes.CONFLICT:
            log.warning("a later attempt of this job reports already: this one stops reporting")
            self._given_up = True
            return 0
        if answer.status_code == httpx.codes.SERVICE_UNAVAILABLE:
            return self._try_again(_seconds(answer.headers.get("Retry-After"), self._interval))
        log.warning("progress was refused (%d): %.200s", answer.status_code, answer.text)
        return self._try_again(_MAX_WAIT)

    def _try_again(self, wait: float) -> float:
        with self._news:
            self._fresh = self._retrying = True
        return max(self._interval, min(wait, _MAX_WAIT))

    def _body(self) -> bytes:
        with self._news:
            content = {**vars(self._identity), "step": 0, **self._state, "events": list(self._events)}
        report = ProgressReport.model_validate(content)
        return report.model_dump_json(exclude_none=True).encode()


def _client(endpoint: Endpoint) -> httpx.Client:
    import httpx

    context = ssl.create_default_context(cadata=endpoint.ca)
    # Proxies of the environment are for the world outside, not for the operator.
    return httpx.Client(base_url=endpoint.url, verify=context, timeout=httpx.Timeout(5), trust_env=False)


def _seconds(text: str | None, default: float) -> float:
    try:
        return float(text or default)
    except ValueError:
        return default
