"""Gathers the facts for one reconcile, live from the API server: there is no cache that could be stale."""

from __future__ import annotations

import asyncio
import datetime
import itertools
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from pinnace_operator.reconcile import registry
from pinnace_operator.reconcile.plan import Observed, OperatorSettings
from pinnace_operator.runtime.kinds import KINDS, LISTED, WORKLOADS
from pinnace_operator.runtime.kube import EVENTS, JOBSETS, PODS, Kube, Object, Resource
from pinnace_operator.runtime.loads import LatestLoads
from pinnace_operator.runtime.owners import UID_LABEL, owner_uid
from pinnace_operator.runtime.progress import LatestReports
from pinnace_operator.runtime.queue import Key

_PODS_ASKED_ABOUT = 4  # whose events are read: pods of one gang wait for the same thing


@dataclass(frozen=True)
class Snapshot:
    """A resource as it lives now, and the facts about it."""

    resource: Object
    observed: Observed

    @property
    def uid(self) -> str:
        return str(self.resource["metadata"]["uid"])


class Dependents:
    """Who waits for whom: the reverse of `spec.model.from`, as far as it was observed."""

    def __init__(self) -> None:
        self._upstreams: dict[Key, frozenset[Key]] = {}
        self._dependents: defaultdict[Key, set[Key]] = defaultdict(set)

    def set(self, key: Key, upstreams: Iterable[Key]) -> None:
        """Replace what `key` waits for."""
        fresh = frozenset(upstreams)
        for gone in self._upstreams.pop(key, frozenset()) - fresh:
            self._dependents[gone].discard(key)
            if not self._dependents[gone]:
                del self._dependents[gone]
        for each in fresh:
            self._dependents[each].add(key)
        if fresh:
            self._upstreams[key] = fresh

    def of(self, key: Key) -> frozenset[Key]:
        """Keys whose decision depends on `key`."""
        return frozenset(self._dependents.get(key, ()))


class Observer:
    """Reads what `reconcile` wants to know about one key."""

    def __init__(self, kube: Kube, *, reports: LatestReports, loads: LatestLoads) -> None:
        self._kube = kube
        self._reports = reports
        self._loads = loads
        self.listening_since: datetime.datetime | None = None  # set when this replica becomes the leader
        self.settings = OperatorSettings()  # with the progress server's CA once that is known, before the first worker
        self.kueue = False
        self.dependents = Dependents()

    async def observe(self, key: Key) -> Snapshot | None:
        """The snapshot, or None when the resource is gone (what is remembered about it is dropped).

        Raises:
            KubeError: a read failed.
        """
        resource = await self._kube.get(KINDS[key.kind], key.namespace, key.name)
        if resource is None:
            self.dependents.set(key, ())
            return None
        resource = {"kind": key.kind, **resource}
        uid = resource["metadata"]["uid"]
        references = registry.KINDS[key.kind].references(resource)
        self.dependents.set(key, (Key(kind, key.namespace, name) for kind, name in references))
        observed = await (self._service(key, uid) if registry.KINDS[key.kind].service else self._job(key, resource))
        return Snapshot(resource, observed)

    async def _job(self, key: Key, resource: Object) -> Observed:
        uid = resource["metadata"]["uid"]
        jobset = await self._kube.get(JOBSETS, key.namespace, key.name)
        pods = await self._pods(key, uid)
        report, report_time = self._reports.get(uid)
        references = registry.KINDS[key.kind].references(resource)
        return Observed(
            now=_now(),
            settings=self.settings,
            jobset=jobset,
            pods=tuple(pods),
            warnings=tuple(await self._warnings(resource, jobset, pods)),
            workload=await self._workload(jobset),
            progress=report,
            progress_time=report_time,
            upstreams={(kind, name): await self._upstream(key.namespace, kind, name) for kind, name in references},
        )

    async def _service(self, key: Key, uid: str) -> Observed:
        # All at once: a change of the spec reaches the gateways only after the last of them.
        pods, *children = await asyncio.gather(
            self._pods(key, uid), *(self._children(each, key, uid) for each in LISTED)
        )
        return Observed(
            now=_now(),
            settings=self.settings,
            pods=tuple(pods),
            warnings=tuple(await self._warnings_about(key.namespace, [("Pod", name) for name in _mounting(pods)])),
            children=tuple(itertools.chain.from_iterable(children)),
            loads=self._loads.get(uid),
            listening_since=self.listening_since,
        )

    async def _children(self, resource: Resource, key: Key, uid: str) -> list[Object]:
        found = self._kube.list(resource, key.namespace, labels=f"{UID_LABEL}={uid}")
        # Items of a list say neither kind nor version.
        return [{"apiVersion": resource.api_version, "kind": resource.kind, **item} async for item in found]

    async def _pods(self, key: Key, uid: str) -> list[Object]:
        return [each async for each in self._kube.list(PODS, key.namespace, labels=f"{UID_LABEL}={uid}")]

    async def _upstream(self, namespace: str, kind: str, name: str) -> Object | None:
        if kind not in KINDS:
            return None
        found = await self._kube.get(KINDS[kind], namespace, name)
        return {"kind": kind, **found} if found else None

    async def _workload(self, jobset: Object | None) -> Object | None:
        if not self.kueue or jobset is None:
            return None
        meta = jobset["metadata"]
        # Kueue labels each Workload with the UID of the job that it stands for.
        labels = f"kueue.x-k8s.io/job-uid={meta['uid']}"
        async for found in self._kube.list(WORKLOADS, meta["namespace"], labels=labels):
            if owner_uid(found) == meta["uid"]:
                return found
        return None

    async def _warnings(self, resource: Object, jobset: Object | None, pods: list[Object]) -> list[Object]:
        """Warning Events, read only while something is pending or failed: they are many in a busy namespace."""
        if jobset is None or _finished(resource):
            return []
        stuck = [pod["metadata"]["name"] for pod in pods if not _fine(pod)]
        if pods and not stuck:
            return []
        meta = jobset["metadata"]
        names = [("JobSet", meta["name"])]
        for each in jobset["spec"].get("replicatedJobs") or []:
            jobs = [f"{meta['name']}-{each['name']}-{index}" for index in range(int(each.get("replicas") or 1))]
            names += [("Job", job) for job in jobs]
        return await self._warnings_about(
            meta["namespace"], names[:8] + [("Pod", name) for name in stuck[:_PODS_ASKED_ABOUT]]
        )

    async def _warnings_about(self, namespace: str, objects: list[tuple[str, str]]) -> list[Object]:
        """By kind and name."""
        warnings = []
        for kind, name in objects:
            fields = f"involvedObject.kind={kind},involvedObject.name={name},type=Warning"
            warnings += [each async for each in self._kube.list(EVENTS, namespace, fields=fields)]
        return warnings


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC).replace(microsecond=0)


def _finished(resource: Object) -> bool:
    conditions = (resource.get("status") or {}).get("conditions") or []
    return any(each["type"] in ("Complete", "Failed") and each["status"] == "True" for each in conditions)


def _mounting(pods: list[Object]) -> list[str]:
    """A few pods that have a node and whose containers are not there: what holds them back stands in Events only."""
    names = []
    for pod in pods:
        status = pod.get("status") or {}
        states = [each.get("state") or {} for each in status.get("containerStatuses") or []]
        waits = {(each.get("waiting") or {}).get("reason") for each in states}
        if status.get("phase") == "Pending" and "ContainerCreating" in waits:
            names.append(pod["metadata"]["name"])
    return names[:_PODS_ASKED_ABOUT]


def _fine(pod: Object) -> bool:
    phase = (pod.get("status") or {}).get("phase")
    return phase in ("Running", "Succeeded")
