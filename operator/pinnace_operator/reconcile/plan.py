"""What goes into a decision and what comes out: plain frozen data, so that the same facts always give the same plan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from pinnace_operator.api.load import LoadReport
from pinnace_operator.api.progress import ProgressReport

Raw = Mapping[str, Any]
"""A Kubernetes object as JSON, never changed in place."""

FIELD_MANAGER = "pinnace-operator"
FINALIZER = "pinnace.dev/delete-artifacts"


@dataclass(frozen=True, kw_only=True)
class StorageDefaults:
    """The installation's S3, from the chart's values; what a job or its namespace's Secret says comes first."""

    endpoint: str = ""
    bucket: str = ""
    prefix: str = ""
    region: str = ""
    secret_name: str = "pinnace-storage"  # noqa: S105 -- a name
    """Name of the Secret looked for in each job's namespace."""


@dataclass(frozen=True, kw_only=True)
class OperatorSettings:
    """What the installation decides for every job."""

    image_registry: str = "localhost"
    image_tag: str = "0.1.0"
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    progress_url: str = ""
    """Where pods post, such as `https://pinnace-operator.pinnace-system.svc:8443`; empty: they don't report."""
    progress_ca: str = ""
    """The certificate (PEM) that signs the progress server's."""
    storage: StorageDefaults = field(default_factory=StorageDefaults)
    no_progress_seconds: int = 3600
    """A running job without a new step for so long is Stalled/NoProgress; 0 turns that off."""
    gateway_egress_ports: tuple[int, ...] = (443, 6443)
    """TCP ports that tool gateways may reach anywhere: the API server's, after address translation, and S3's."""


@dataclass(frozen=True, kw_only=True)
class Load:
    """What one gateway said last, and when it was received."""

    report: LoadReport
    received: datetime


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """Why a child could not be applied."""

    message: str
    conflict: bool = False
    """Its name belongs to somebody else's object."""
    passing: bool = False
    """It goes away by itself: the object of a predecessor is being deleted."""


@dataclass(frozen=True, kw_only=True)
class Observed:
    """The facts about one resource. Whatever is not known is absent, and the next reconcile sees more.

    Jobs have a JobSet, reports of progress and upstreams; services have children of many kinds and reports of load.
    """

    now: datetime
    """The only clock; aware, whole seconds."""
    settings: OperatorSettings
    jobset: Raw | None = None
    """The JobSet with the job's name in its namespace, whoever owns it."""
    pods: tuple[Raw, ...] = ()
    """Every pod labelled `pinnace.dev/uid: <the job's uid>`, also ended and terminating ones."""
    warnings: tuple[Raw, ...] = ()
    """Recent Kubernetes Events of those pods, of the batch Job(s) and of the JobSet (core/v1, raw)."""
    workload: Raw | None = None
    """Kueue's Workload of the JobSet, where Kueue is installed."""
    progress: ProgressReport | None = None
    """The latest report accepted from the job's pods."""
    progress_time: datetime | None = None
    """When it was received; aware, whole seconds."""
    upstreams: Mapping[tuple[str, str], Raw | None] = field(default_factory=dict)
    """By (kind, name): the resources of `references(resource)`, None when there is no such resource."""
    apply_error: str | None = None
    """What the API server answered when the last plan's children were refused (403, 422); None when they were not."""
    children: tuple[Raw, ...] = ()
    """Of a service: every object of the registry's child kinds labelled with its UID; `kind` is always set."""
    loads: tuple[Load, ...] = ()
    """The latest report of each gateway of a service, however old."""
    listening_since: datetime | None = None
    """Since when this operator has accepted reports: silence before that says nothing."""
    refused: Mapping[tuple[str, str], Refusal] = field(default_factory=dict)
    """By (kind, name): children of the last plan that were refused, when this plan is about saying so."""


@dataclass(frozen=True, kw_only=True)
class Prune:
    """A child that must not exist. Delete exactly this object (precondition on its UID)."""

    api_version: str
    kind: str
    name: str
    uid: str
    propagation: Literal["Foreground", "Background"] = "Foreground"
    """Foreground keeps the object visible until its pods are gone, so that no second gang can start meanwhile."""


@dataclass(frozen=True, kw_only=True)
class SecretRequest:
    """A Secret that must exist, with random values that only the runtime makes and nobody in the operator reads.

    A decision can't be random, and must not know a secret: so it asks for one. It is created when there is none of
    that name, and never read, changed or compared.
    """

    name: str
    keys: tuple[str, ...]
    """Each gets a value of its own: 32 random bytes in URL-safe base64."""
    labels: Raw
    owner_reference: Raw


@dataclass(frozen=True, kw_only=True)
class EventRecord:
    """A Kubernetes Event on the resource.

    Plans may repeat it; `key` (with the resource's UID) names it, so it is created once and a repeat is no error.
    """

    type: Literal["Normal", "Warning"]
    reason: str
    message: str
    key: str


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to do now. Order: finalizer, prune, secrets, children, events, status. Doing it twice is harmless."""

    status: Raw
    """The whole desired `.status`; written to the status subresource only where it differs from the present one."""
    children: tuple[Raw, ...] = ()
    """Manifests for server-side apply with force, in the resource's namespace."""
    prune: tuple[Prune, ...] = ()
    secrets: tuple[SecretRequest, ...] = ()
    events: tuple[EventRecord, ...] = ()
    requeue_after: int | None = None
    """Seconds until time alone changes the plan; None when only an event can."""
    finalizer: bool = False
    """Whether the resource must carry `FINALIZER`: add it before any child is made, remove it when False."""
