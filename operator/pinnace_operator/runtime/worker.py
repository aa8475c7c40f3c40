"""A worker: take a key, observe, decide, execute. No failure is lost: it is logged, counted and tried again."""

from __future__ import annotations

import dataclasses
import logging
import time

from pinnace_operator.reconcile import registry
from pinnace_operator.runtime import kube_errors
from pinnace_operator.runtime.execute import ChildRefused, Executor
from pinnace_operator.runtime.leadership import Leadership
from pinnace_operator.runtime.logs import current_key
from pinnace_operator.runtime.metrics import Metrics
from pinnace_operator.runtime.observe import Observer, Snapshot
from pinnace_operator.runtime.queue import Key, WorkQueue
from pinnace_operator.runtime.stalled import stalled

log = logging.getLogger(__name__)


class Reconciler:
    """What every worker does with a key."""

    def __init__(
        self, *, queue: WorkQueue, observer: Observer, executor: Executor, metrics: Metrics, stalled_after: int
    ) -> None:
        self._queue = queue
        self._observer = observer
        self._executor = executor
        self._metrics = metrics
        self._stalled_after = stalled_after

    async def work(self, leadership: Leadership) -> None:
        """Reconcile key after key while this replica leads, for ever."""
        while True:
            await leadership.wait()
            key = await self._queue.get()
            token = current_key.set(str(key))
            try:
                if leadership:
                    await self.handle(key)
            finally:
                current_key.reset(token)
                self._queue.done(key)

    async def handle(self, key: Key) -> None:
        """Reconcile once and plan the next time."""
        started = time.monotonic()
        try:
            again = await self._reconcile(key)
        except kube_errors.NotLeader as refusal:
            log.info("Dropped: %s", refusal)  # the next leader starts from a list
        except (kube_errors.Conflict, kube_errors.Gone) as error:
            self._failed(key, error, f"somebody else was faster: {error}")
        except kube_errors.KubeError as error:
            delay = self._failed(key, error, str(error), error.retry_after)
            await self._say_stalled(key, error, delay)
        except Exception as error:
            # A bug, or an object no version of ours has made: it must not take other resources down with it.
            log.exception("Reconcile failed")
            delay = self._failed(key, error, repr(error))
            await self._say_stalled(key, error, delay)
        else:
            self._queue.succeeded(key)
            if again is not None:
                self._queue.add_after(key, again)
        finally:
            self._metrics.reconcile_seconds.labels(key.kind).observe(time.monotonic() - started)

    async def _reconcile(self, key: Key) -> float | None:
        snapshot = await self._observer.observe(key)
        if snapshot is None:
            self._queue.forget(key)
            return None
        plan = registry.reconcile(snapshot.resource, snapshot.observed)
        try:
            held_back = await self._executor.execute(snapshot, plan)
        except ChildRefused as refusal:
            await self._say_refused(snapshot, refusal)
            self._failed(key, refusal, str(refusal))
            return None
        delays = [each for each in (held_back, plan.requeue_after) if each is not None]
        return min(delays) if delays else None

    async def _say_refused(self, snapshot: Snapshot, refusal: ChildRefused) -> None:
        """The user reads in the status what the API server said."""
        observed = dataclasses.replace(snapshot.observed, apply_error=str(refusal), refused=refusal.refusals)
        await self._executor.report(snapshot, registry.reconcile(snapshot.resource, observed))

    async def _say_stalled(self, key: Key, error: Exception, delay: float) -> None:
        """After many failures in a row, say so in the status, if at least that can be written."""
        if self._queue.failures(key) != self._stalled_after:
            return
        try:
            snapshot = await self._observer.observe(key)
            if snapshot:
                await self._executor.report(snapshot, stalled(snapshot.resource, error, delay, snapshot.observed.now))
        except (kube_errors.KubeError, kube_errors.NotLeader) as again:
            log.warning("The status could not say that reconciles fail: %s", again)

    def _failed(self, key: Key, error: Exception, message: str, at_least: float = 0) -> float:
        delay = self._queue.retry(key, at_least)
        self._metrics.errors.labels(key.kind, type(error).__name__).inc()
        log.warning("Failure %d in a row, again in %.1f s: %s", self._queue.failures(key), delay, message)
        return delay
