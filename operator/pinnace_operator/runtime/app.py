"""The operator as a whole: what runs beside what, and in which order it starts and stops."""

from __future__ import annotations

import asyncio
import datetime
import logging
import signal
from importlib.metadata import version

from pinnace_operator.reconcile.plan import OperatorSettings, StorageDefaults
from pinnace_operator.runtime import kube_errors, probes, tls
from pinnace_operator.runtime.credentials import Credentials
from pinnace_operator.runtime.execute import Executor
from pinnace_operator.runtime.gatekeeper import Gatekeeper
from pinnace_operator.runtime.kinds import KINDS, LISTED, WORKLOADS
from pinnace_operator.runtime.kube import JOBSETS, PODS, Kube, Object, Resource
from pinnace_operator.runtime.leadership import Leadership
from pinnace_operator.runtime.lease import Election
from pinnace_operator.runtime.loads import LatestLoads
from pinnace_operator.runtime.metrics import Metrics
from pinnace_operator.runtime.observe import Observer
from pinnace_operator.runtime.owners import jobset_keys, owner_key
from pinnace_operator.runtime.progress import LatestReports, ProgressServer
from pinnace_operator.runtime.queue import Key, WorkQueue
from pinnace_operator.runtime.resync import Resync
from pinnace_operator.runtime.settings import Settings
from pinnace_operator.runtime.source import EventSource
from pinnace_operator.runtime.watchdog import Pulse, Watchdog
from pinnace_operator.runtime.worker import Reconciler

log = logging.getLogger(__name__)

LEASE = "pinnace-operator"
_LEAF_CHECK = 86_400.0


class Operator:
    """One replica."""

    def __init__(self, settings: Settings, credentials: Credentials) -> None:
        self._settings = settings
        self._credentials = credentials
        self._metrics = Metrics()
        self._leadership = Leadership()
        self._queue = WorkQueue(base=settings.backoff_base, cap=settings.backoff_cap)
        self._reports = LatestReports()
        self._loads = LatestLoads()
        self._pulse = Pulse()
        self._kube = Kube(
            credentials, fence=self._fence, count=self._metrics.count_write, timeout=settings.request_timeout
        )
        self._election = Election(
            self._kube, namespace=settings.namespace, name=LEASE, identity=settings.identity,
            duration=settings.lease_duration, margin=settings.lease_margin, period=settings.lease_period,
        )  # fmt: skip
        self._watchdog = Watchdog(
            pulse=self._pulse, oldest_key=self._queue.oldest, leads=self._election.leads,
            max_watch_age=settings.liveness_watch_age, max_key_age=settings.liveness_key_age,
        )  # fmt: skip
        self._observer = Observer(self._kube, reports=self._reports, loads=self._loads)
        self._executor = Executor(self._kube, status_interval=settings.status_interval)
        self._gauges()

    async def run(self) -> None:
        """Run until SIGTERM or SIGINT, then stop in order: no new work, writes end, the Lease is released.

        Raises:
            Exception: a part that must never end did; the process should exit and be started again.
        """
        stopping = asyncio.Event()
        loop = asyncio.get_running_loop()
        for each in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(each, stopping.set)
        settings = self._settings
        server = await probes.serve(self._metrics, self._watchdog, settings.bind, settings.http_port)
        parts = asyncio.create_task(self._parts(), name="parts")
        stop = asyncio.create_task(stopping.wait(), name="stop")
        try:
            await asyncio.wait({parts, stop}, return_when=asyncio.FIRST_COMPLETED)
            if parts.done():
                parts.result()
        finally:
            stop.cancel()
            parts.cancel()
            await asyncio.wait({parts})
            await self._release()
            await self._kube.close()
            await server.cleanup()
        log.info("Stopped")

    async def _parts(self) -> None:
        labelled = (JOBSETS, PODS, *LISTED)
        watched = {**dict.fromkeys(KINDS.values(), False), **dict.fromkeys(labelled, True)}
        if await self._patiently_exists(WORKLOADS):
            watched[WORKLOADS] = False
        source = EventSource(
            settings=self._settings, credentials=self._credentials, resources=watched, pulse=self._pulse,
            heard=self._heard, restarted=self._metrics.source_restarts.inc,
        )  # fmt: skip
        authority = asyncio.get_running_loop().create_future()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._election.run(self._won, self._leadership.lost), name="election")
            group.create_task(source.run(), name="event source")
            group.create_task(self._progress(authority), name="progress server")
            group.create_task(self._resync(), name="resync")
            self._observer.settings = self._for_jobs((await authority).decode())
            self._observer.kueue = WORKLOADS in watched
            reconciler = Reconciler(
                queue=self._queue, observer=self._observer, executor=self._executor, metrics=self._metrics,
                stalled_after=self._settings.stalled_after,
            )  # fmt: skip
            for number in range(self._settings.workers):
                group.create_task(reconciler.work(self._leadership), name=f"worker {number}")

    def _heard(self, resource: Resource, found: Object) -> None:
        """An event came: whose keys does it concern? A standby has no use for it, its first act as leader is a list."""
        if not self._leadership:
            return
        if resource in KINDS.values():
            key = Key(resource.kind, found["metadata"]["namespace"], found["metadata"]["name"])
            # Only a change of an upstream wakes those that wait for it, or a circle of `from` would spin.
            keys = [key, *self._observer.dependents.of(key)]
        elif resource == WORKLOADS:
            keys = jobset_keys(found, KINDS)
        else:
            owner = owner_key(found, KINDS)
            keys = [owner] if owner else []
        for key in keys:
            self._queue.add(key)

    def _won(self) -> None:
        self._queue.clear()
        self._observer.listening_since = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
        self._leadership.won()

    async def _resync(self) -> None:
        resync = Resync(
            self._kube, kinds=KINDS, namespaces=self._settings.namespaces, queue=self._queue,
            reports=self._reports, loads=self._loads, metrics=self._metrics,
            forget_all_but=self._executor.forget_all_but,
        )  # fmt: skip
        failures = 0
        while True:
            await self._leadership.wait()
            try:
                number = await resync.once()
            except (kube_errors.KubeError, kube_errors.NotLeader) as error:
                failures += 1
                self._metrics.errors.labels("", type(error).__name__).inc()
                pause = min(self._settings.resync_period, self._settings.backoff_base * 2.0 ** min(failures, 16))
                log.warning("Resync failed, again in %.1f s: %s", pause, error)
            else:
                failures = 0
                log.info("Resync: %d resources", number)
                pause = self._settings.resync_period
            await self._leadership.pause(pause)

    async def _progress(self, ready: asyncio.Future[bytes]) -> None:
        """Serve progress reports; the certificate's leaf is made anew long before it ends."""
        settings = self._settings
        authority = await self._authority()
        names = [f"pinnace-operator.{settings.namespace}.svc", "localhost", "127.0.0.1"]
        host = settings.pods_progress_url.split("://")[-1].split("/")[0].rsplit(":", 1)[0]
        context = authority.server_context(sorted({*names, host}), datetime.datetime.now(datetime.UTC))
        server = ProgressServer(
            gatekeeper=Gatekeeper(self._kube, keep=settings.token_cache), reports=self._reports, loads=self._loads,
            leads=self._election.leads, queue=self._queue, count=self._metrics.count_report,
        )  # fmt: skip
        await server.start(settings.bind, settings.progress_port, context)
        ready.set_result(authority.certificate)
        try:
            while True:
                await asyncio.sleep(_LEAF_CHECK)
                authority.renew(context, sorted({*names, host}), datetime.datetime.now(datetime.UTC))
        finally:
            await server.stop()

    async def _authority(self) -> tls.Authority:
        while True:
            try:
                found = await tls.authority(self._kube, self._settings.namespace, may_create=self._election.leads())
            except (kube_errors.KubeError, kube_errors.NotLeader) as error:
                log.warning("The progress server's CA is not there yet: %s", error)
                found = None
            if found:
                return found
            await asyncio.sleep(self._settings.lease_period / 2)

    async def _patiently_exists(self, resource: Resource) -> bool:
        delay = self._settings.backoff_base
        while True:
            try:
                return await self._kube.exists(resource)
            except kube_errors.KubeError as error:
                log.warning("The API server does not answer, again in %.1f s: %s", delay, error)
                await asyncio.sleep(delay)
                delay = min(delay * 2, 10)

    async def _release(self) -> None:
        try:
            await self._election.release()
        except kube_errors.KubeError as error:
            log.warning("The Lease was not released, the next leader waits for its end: %s", error)

    def _fence(self) -> None:
        self._election.fence()

    def _for_jobs(self, ca: str) -> OperatorSettings:
        """What the pure part is told about this installation."""
        given = self._settings
        return OperatorSettings(
            image_registry=given.image_registry, image_tag=given.image_tag or version("pinnace"),
            image_pull_policy=given.image_pull_policy, no_progress_seconds=given.no_progress_seconds,
            progress_url=given.pods_progress_url, progress_ca=ca, gateway_egress_ports=given.gateway_egress_ports,
            storage=StorageDefaults(
                endpoint=given.storage_endpoint, bucket=given.storage_bucket, prefix=given.storage_prefix,
                region=given.storage_region, secret_name=given.storage_secret_name,
            ),
        )  # fmt: skip

    def _gauges(self) -> None:
        gauge = self._metrics.gauge
        gauge("pinnace_leader", "1 while this replica may write", lambda: float(self._election.leads()))
        gauge("pinnace_queue_depth", "Keys that are ready or worked on", self._queue.depth)
        gauge("pinnace_queue_oldest_seconds", "For how long the oldest of them has waited", self._queue.oldest)
        gauge(
            "pinnace_watch_age_seconds", "Since the quietest watch was last heard of",
            lambda: max(self._pulse.ages().values(), default=0),
        )  # fmt: skip


async def run(settings: Settings) -> None:
    """Run one replica until it is told to stop."""
    await Operator(settings, Credentials.load()).run()
