"""Carries a plan out: finalizer, prune, children, events, status, in this order. Doing it twice is harmless."""

from __future__ import annotations

import datetime
import hashlib
import json
import time
from collections.abc import Callable, Mapping
from typing import Any

from pinnace_operator.api.base import API_VERSION
from pinnace_operator.reconcile.plan import FINALIZER, EventRecord, Plan
from pinnace_operator.runtime import kube_errors
from pinnace_operator.runtime.kinds import KINDS, child_resource
from pinnace_operator.runtime.kube import EVENTS, JOBSETS, Kube, Object
from pinnace_operator.runtime.observe import Snapshot


class ChildRefused(Exception):
    """The API server refuses a child (403, 422): trying again will not help until something is changed."""


class Executor:
    """Writes for one snapshot.

    Args:
        status_interval: shortest time between two status writes that change progress only, in seconds.
        clock: monotonic seconds.
    """

    def __init__(self, kube: Kube, *, status_interval: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._kube = kube
        self._status_interval = status_interval
        self._clock = clock
        self._memory: dict[str, _Memory] = {}  # by UID of the resource

    def forget_all_but(self, uids: set[str]) -> None:
        """Drop what is remembered of resources that are gone."""
        for uid in self._memory.keys() - uids:
            del self._memory[uid]

    async def execute(self, snapshot: Snapshot, plan: Plan) -> float | None:
        """Make it so; in how many seconds a status write that was held back is due, or None.

        Raises:
            ChildRefused: a child was refused; nothing after it was written.
            KubeError: another write failed; the rest is for the next try.
            NotLeader: the fence closed.
        """
        memory = self._memory.setdefault(snapshot.uid, _Memory())
        resource = snapshot.resource
        finalizers = resource["metadata"].get("finalizers") or []
        if plan.finalizer and FINALIZER not in finalizers:
            await self._finalizer(resource, [FINALIZER])
        namespace = resource["metadata"]["namespace"]
        for each in plan.prune:
            child = child_resource(each.api_version, each.kind)
            await self._kube.delete(child, namespace, each.name, uid=each.uid, propagation=each.propagation)
        for manifest in plan.children:
            await self._apply(snapshot, dict(manifest), memory)
        held_back = await self.report(snapshot, plan)
        if not plan.finalizer and FINALIZER in finalizers:
            await self._finalizer(resource, [])
        return held_back

    async def report(self, snapshot: Snapshot, plan: Plan) -> float | None:
        """Only what users read: events and status."""
        memory = self._memory.setdefault(snapshot.uid, _Memory())
        for event in plan.events:
            await self._record(snapshot.resource, event, memory)
        return await self._status(snapshot.resource, plan.status, memory)

    async def _apply(self, snapshot: Snapshot, manifest: Object, memory: _Memory) -> None:
        """Server-side apply, unless exactly this was applied and nobody touched the spec since."""
        child = child_resource(manifest["apiVersion"], manifest["kind"])
        meta = manifest["metadata"]
        live = snapshot.observed.jobset if child == JOBSETS else None
        digest = hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
        name = f"{child.kind}/{meta['name']}"
        if live:
            seen = (live["metadata"]["uid"], live["metadata"].get("generation"), digest)
            if memory.applied.get(name) == seen:
                return
            # The object that was observed, or nothing: never one that took its name meanwhile.
            manifest = {**manifest, "metadata": {**meta, "uid": live["metadata"]["uid"]}}
        try:
            applied = await self._kube.apply(child, manifest)
        except (kube_errors.Forbidden, kube_errors.Invalid) as error:
            raise ChildRefused(str(error)) from error
        memory.applied[name] = (applied["metadata"]["uid"], applied["metadata"].get("generation"), digest)

    async def _record(self, resource: Object, event: EventRecord, memory: _Memory) -> None:
        """Create the Event under a name made from its key: a repeat finds it there."""
        if event.key in memory.events:
            return
        meta = resource["metadata"]
        digest = hashlib.sha256(f"{meta['uid']}/{event.key}".encode()).hexdigest()[:16]
        now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        manifest = {
            "apiVersion": "v1", "kind": "Event", "type": event.type,
            "metadata": {"namespace": meta["namespace"], "name": f"{meta['name'][:200]}.{digest}"},
            "involvedObject": {
                "apiVersion": API_VERSION, "kind": resource["kind"], "namespace": meta["namespace"],
                "name": meta["name"], "uid": meta["uid"],
            },
            "reason": event.reason[:128], "message": event.message[:1024], "firstTimestamp": now, "lastTimestamp": now,
            "count": 1, "source": {"component": "pinnace-operator"},
            "reportingComponent": "pinnace.dev/operator", "reportingInstance": "",
        }  # fmt: skip
        try:
            await self._kube.create(EVENTS, manifest)
        except kube_errors.Conflict as error:
            if error.reason != "AlreadyExists":  # recorded before, by this process or one before it
                raise
        except kube_errors.Forbidden as error:
            if error.reason != "Forbidden" or "being terminated" not in str(error):
                raise
        memory.events.add(event.key)

    async def _status(self, resource: Object, wanted: Mapping[str, Any], memory: _Memory) -> float | None:
        present = resource.get("status") or {}
        if wanted == present:
            return None
        wait = memory.status_written + self._status_interval - self._clock()
        if wait > 0 and _without_progress(wanted) == _without_progress(present):
            return wait
        meta = resource["metadata"]
        manifest = {
            "apiVersion": API_VERSION, "kind": resource["kind"], "status": wanted,
            "metadata": {"namespace": meta["namespace"], "name": meta["name"], "uid": meta["uid"]},
        }  # fmt: skip
        await self._kube.apply(KINDS[resource["kind"]], manifest, status=True)
        memory.status_written = self._clock()
        return None

    async def _finalizer(self, resource: Object, finalizers: list[str]) -> None:
        meta = resource["metadata"]
        manifest = {
            "apiVersion": API_VERSION, "kind": resource["kind"],
            "metadata": {
                "namespace": meta["namespace"], "name": meta["name"], "uid": meta["uid"], "finalizers": finalizers,
            },
        }  # fmt: skip
        await self._kube.apply(KINDS[resource["kind"]], manifest)


class _Memory:
    """What this process did for one resource. Losing it costs a few writes that change nothing."""

    def __init__(self) -> None:
        self.applied: dict[str, tuple[str, int | None, str]] = {}
        self.events: set[str] = set()
        self.status_written = float("-inf")


def _without_progress(status: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in status.items() if name != "progress"}
