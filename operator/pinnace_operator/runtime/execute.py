"""Carries a plan out: finalizer, prune, secrets, children, events, status, in this order. Twice is harmless."""

from __future__ import annotations

import base64
import datetime
import hashlib
import json
import secrets
import time
from collections.abc import Callable, Mapping
from typing import Any

from pinnace_operator.api.base import API_VERSION
from pinnace_operator.reconcile.plan import FINALIZER, EventRecord, Plan, Refusal, SecretRequest
from pinnace_operator.runtime import kube_errors
from pinnace_operator.runtime.kinds import KINDS, child_resource
from pinnace_operator.runtime.kube import EVENTS, SECRETS, Kube, Object, Resource
from pinnace_operator.runtime.observe import Snapshot
from pinnace_operator.runtime.owners import owner_uid

_SECRET_SECONDS = 60.0
"""How long a Secret that was created, or was there, is taken for granted: the operator may not read them."""


class ChildRefused(Exception):
    """Children that the API server refuses (403, 422), or whose name belongs to somebody else: trying again will not
    help until something is changed."""

    def __init__(self, refusals: Mapping[tuple[str, str], Refusal]) -> None:
        super().__init__("; ".join(each.message for each in refusals.values()))
        self.refusals = dict(refusals)


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
            ChildRefused: children were refused. The others were applied; events and status were not written.
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
        refusals = {}
        for request in plan.secrets:
            refusals[SECRETS.kind, request.name] = await self._ensure(namespace, request, memory)
        for manifest in plan.children:
            refusals[manifest["kind"], manifest["metadata"]["name"]] = await self._apply(
                snapshot, dict(manifest), memory
            )
        refused = {child: refusal for child, refusal in refusals.items() if refusal}
        if refused:
            raise ChildRefused(refused)
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

    async def _apply(self, snapshot: Snapshot, manifest: Object, memory: _Memory) -> Refusal | None:
        """Server-side apply, unless exactly this was applied and nobody touched it since; why it was refused."""
        child = child_resource(manifest["apiVersion"], manifest["kind"])
        meta = manifest["metadata"]
        live = _observed(snapshot, child, meta["name"])
        digest = hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
        name = f"{child.kind}/{meta['name']}"
        if live and memory.applied.get(name) == (*_version(live), digest):
            return None
        if live is None and child.kind != "JobSet":
            # Not among our labelled objects: nobody's, somebody else's, or ours without its labels.
            live = await self._kube.get(child, meta["namespace"], meta["name"])
        if live:
            stranger = _stranger(snapshot, child, live)
            if stranger:
                return stranger
            # The object that was observed: never one that took its name meanwhile.
            manifest = {**manifest, "metadata": {**meta, "uid": live["metadata"]["uid"]}}
        try:
            applied = await self._kube.apply(child, manifest)
        except (kube_errors.Forbidden, kube_errors.Invalid) as error:
            return Refusal(message=str(error))
        memory.applied[name] = (*_version(applied), digest)
        return None

    async def _ensure(self, namespace: str, request: SecretRequest, memory: _Memory) -> Refusal | None:
        """Create a Secret with random values, if there is none of that name. What is in it is never read or kept."""
        if self._clock() < memory.secrets.get(request.name, float("-inf")):
            return None
        manifest = {
            "apiVersion": SECRETS.api_version, "kind": SECRETS.kind, "type": "Opaque",
            "metadata": {
                "namespace": namespace, "name": request.name, "labels": dict(request.labels),
                "ownerReferences": [dict(request.owner_reference)],
            },
            "data": {key: base64.b64encode(secrets.token_urlsafe(32).encode()).decode() for key in request.keys},
        }  # fmt: skip
        try:
            await self._kube.create(SECRETS, manifest)
        except kube_errors.Conflict as error:
            if error.reason != "AlreadyExists":
                raise
        except (kube_errors.Forbidden, kube_errors.Invalid) as error:
            return Refusal(message=str(error))
        memory.secrets[request.name] = self._clock() + _SECRET_SECONDS
        return None

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
        if wait > 0 and _steady(wanted) == _steady(present):
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
        self.applied: dict[str, tuple[str, object, str]] = {}
        self.secrets: dict[str, float] = {}  # name -> until when it is taken for granted
        self.events: set[str] = set()
        self.status_written = float("-inf")


def _observed(snapshot: Snapshot, child: Resource, name: str) -> Object | None:
    observed = snapshot.observed
    if observed.jobset and child.kind == "JobSet":
        return dict(observed.jobset)
    found = (each for each in observed.children if (each["kind"], each["metadata"]["name"]) == (child.kind, name))
    return next((dict(each) for each in found), None)


def _version(live: Object) -> tuple[str, object]:
    """Changes whenever somebody writes what we apply. Kinds without a generation change with every write."""
    meta = live["metadata"]
    return meta["uid"], meta.get("generation") or meta.get("resourceVersion")


def _stranger(snapshot: Snapshot, child: Resource, live: Object) -> Refusal | None:
    """Why the name is taken; None when the object is the resource's own. Decisions about JobSets look themselves."""
    ours = snapshot.resource["metadata"]
    if child.kind == "JobSet" or owner_uid(live) == snapshot.uid:
        return None
    references = live["metadata"].get("ownerReferences") or []
    owner = next((each for each in references if each.get("controller")), None)
    name = f"{child.kind} {live['metadata']['name']}"
    if owner and (owner["kind"], owner["name"]) == (snapshot.resource["kind"], ours["name"]):
        text = f"Waits until the {name} of an earlier {owner['kind']} named {owner['name']} is gone."
        return Refusal(message=text, passing=True)
    whose = f"{owner['kind']}/{owner['name']}" if owner else "nobody that the operator knows"
    return Refusal(message=f"A {name} exists already and belongs to {whose}", conflict=True)


_VOLATILE = ("progress", "unhealthyTools", "benchmarks", "score", "policyVersion", "reward", "staleness")
_VOLATILE_OF_SESSIONS = ("free", "armed", "inUse")


def _steady(status: Mapping[str, Any]) -> dict[str, Any]:
    """The status without what changes all the time under load and may be shown a little later."""
    steady = {name: value for name, value in status.items() if name not in _VOLATILE}
    if "sessions" in steady:
        sessions = dict(steady["sessions"])
        steady["sessions"] = {name: value for name, value in sessions.items() if name not in _VOLATILE_OF_SESSIONS}
    return steady
