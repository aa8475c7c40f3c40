"""The models that a job starts from: results of other jobs (`from`) are waited for, then pinned."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from pinnace_operator.api.conditions import ConditionType, Reason, explain, is_true
from pinnace_operator.api.shared import DataSource, JobReference, ModelSource
from pinnace_operator.api.status import CheckpointRef, InputRef, JobStatus
from pinnace_operator.reconcile.plan import Raw

_CHECKPOINT = re.compile(r"(?P<folder>s3://.+/checkpoints)/step-\d+/?$")
_OUTPUT = re.compile(r"(?P<run>s3://.+)/output/?$")


@dataclass(frozen=True)
class Found:
    """Where the model is, and the digest of the manifest that covers it, where the operator knows it."""

    uri: str
    digest: str | None = None


@dataclass(frozen=True)
class Need:
    """Something that is there, and what pods find about it in `resolved` under `field`."""

    field: str
    resolved: Raw
    ref: InputRef
    """For the lineage."""


@dataclass(frozen=True)
class Missing:
    """Not there: yet (`WaitingForInput`), or for good (`InputFailed`)."""

    reason: Reason
    message: str

    @property
    def final(self) -> bool:
        return self.reason is Reason.INPUT_FAILED


def references(sources: Iterable[Raw | None]) -> tuple[tuple[str, str], ...]:
    """(kind, name) of the resources whose results these are (as the spec has them, right or wrong), each once."""
    found = [(each or {}).get("from") or {} for each in sources]
    return tuple(dict.fromkeys((str(one["kind"]), str(one["name"])) for one in found if {"kind", "name"} <= one.keys()))


def lineage(field: str, source: ModelSource) -> InputRef:
    """What the spec says about a model, for `status.inputs`."""
    if source.from_:
        checkpoint = f"@{source.from_.checkpoint}" if source.from_.checkpoint else ""
        return InputRef(ref=f"{field}: {source.from_.kind}/{source.from_.name}{checkpoint}")
    if source.hub:
        return InputRef(ref=f"{field}: hub {source.hub.repo}@{source.hub.revision}"[:512])
    return InputRef(ref=f"{field}: {source.uri}"[:512], uri=source.uri)


def data(field: str, source: DataSource) -> InputRef:
    """What the spec says about data, likewise."""
    if source.uri:
        return InputRef(ref=f"{field}: {source.uri}"[:512], uri=source.uri)
    if source.hub:
        return InputRef(ref=f"{field}: hub {source.hub.repo}@{source.hub.revision} {source.hub.split}"[:512])
    if source.config_map:
        return InputRef(ref=f"{field}: ConfigMap/{source.config_map.name} {source.config_map.key}"[:512])
    builtin = source.builtin
    assert builtin is not None  # noqa: S101 -- the model guarantees exactly one source
    return InputRef(ref=f"{field}: builtin {builtin.name}, {builtin.samples} samples, seed {builtin.seed}")


def resolve(reference: JobReference, upstream: Raw | None) -> Found | Missing:
    """Where the referenced model is, or why there is none."""
    name = f"{reference.kind}/{reference.name}"
    if upstream is None:
        return _waiting(f"Waits for {name}, which does not exist yet: create it in this namespace")
    try:
        status = _status(dict(upstream.get("status") or {}))
    except ValidationError:
        return _waiting(f"Waits for {name}, whose status this operator can't read")
    complete = is_true(status.conditions, ConditionType.COMPLETE)
    failed = is_true(status.conditions, ConditionType.FAILED)
    if reference.checkpoint is not None:
        return _checkpoint(reference.checkpoint, name, status, finished=complete or failed)
    if complete and status.output:
        return Found(status.output.uri, status.output.digest)
    if failed:
        return Missing(Reason.INPUT_FAILED, explain(Reason.INPUT_FAILED, f"{name} failed and has no output"))
    progress = status.progress
    done = f" ({progress.percent} % done)" if progress and progress.percent is not None else ""
    return _waiting(f"Waits for the output of {name}, which is {status.state}{done}")


def _status(raw: Raw) -> JobStatus:
    """What all kinds of jobs have in common. Raises ValidationError."""
    known = {field.alias for field in JobStatus.model_fields.values()}
    return JobStatus.from_manifest({name: value for name, value in raw.items() if name in known})


def _checkpoint(wanted: str, name: str, status: JobStatus, *, finished: bool) -> Found | Missing:
    """Checkpoints of a job that still runs come and go, so they are taken when it has ended, well or not."""
    if not finished:
        return _waiting(f"Waits for {name} to end, whose checkpoint {wanted} it takes; it is {status.state}")
    newest = status.checkpoint
    if wanted == "latest" and newest:
        return Found(f"{newest.uri.rstrip('/')}/model", newest.digest)
    folder = _folder(newest, status)
    if wanted == "best" and folder:
        return Found(folder)
    if wanted.isdecimal() and folder:
        return Found(f"{folder}/step-{int(wanted):08d}/model")
    return Missing(Reason.INPUT_FAILED, explain(Reason.INPUT_FAILED, f"{name} has ended without checkpoint {wanted}"))


def _folder(newest: CheckpointRef | None, status: JobStatus) -> str | None:
    found = _CHECKPOINT.match(newest.uri) if newest else None
    if found:
        return found["folder"]
    ended = _OUTPUT.match(status.output.uri) if status.output else None
    return f"{ended['run']}/checkpoints" if ended else None


def _waiting(message: str) -> Missing:
    return Missing(Reason.WAITING_FOR_INPUT, f"{message}.")


def pinned(inputs: tuple[InputRef, ...], ref: str) -> InputRef | None:
    """The input as it was decided when the job started: what happens to the other resource later changes nothing."""
    return next((each for each in inputs if each.ref == ref), None)


def for_pods(reference: JobReference, uri: str, digest: str | None) -> dict[str, Any]:
    """`resolved` of one model; no digest for a checkpoint, whose manifest lies above its `model` folder."""
    if reference.checkpoint is None:
        return {"uri": uri, "digest": digest}
    return {"uri": uri, **({"checkpoint": "best"} if reference.checkpoint == "best" else {})}
