"""The pods' environment variables, exactly as docs/contracts.md §2 lists them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from pinnace_operator.api.shared import StorageRef, Tracking
from pinnace_operator.builders.identity import Identity

RESTART_LABEL = "jobset.sigs.k8s.io/restart-attempt"
"""Set by the JobSet controller on every pod; counts its restarts from 0."""

_STORAGE = {
    "PINNACE_S3_ENDPOINT": "endpoint",
    "PINNACE_S3_BUCKET": "bucket",
    "PINNACE_S3_PREFIX": "prefix",
    "AWS_REGION": "region",
    "AWS_ACCESS_KEY_ID": "accessKeyId",
    "AWS_SECRET_ACCESS_KEY": "secretAccessKey",
}

Env = dict[str, Any]


def job(
    identity: Identity, spec: Mapping[str, Any], *, models: Mapping[str, Mapping[str, Any]], first_attempt: int
) -> Env:
    """`PINNACE_JOB`: what the pod has to do, with all defaults filled in."""
    described = {
        "kind": identity.kind,
        "namespace": identity.namespace,
        "name": identity.name,
        "uid": identity.uid,
        "generation": identity.generation,
        "firstAttempt": first_attempt,
        "runPath": identity.run_path,
        "resolved": {field: dict(model) for field, model in models.items()},
        "spec": dict(spec),
    }
    return plain("PINNACE_JOB", json.dumps(described, sort_keys=True, separators=(",", ":")))


def pod() -> list[Env]:
    """Who the pod is, from the downward API."""
    return [
        _field("PINNACE_POD", "metadata.name"),
        _field("PINNACE_ATTEMPT", f"metadata.labels['{RESTART_LABEL}']"),
    ]


def storage(wanted: StorageRef, defaults: Mapping[str, str], *, secret: str) -> list[Env]:
    """Where S3 is: the spec's value, else the Secret's key (only the kubelet reads it), else the chart's default.

    Kubernetes can't express the last step, so defaults have names of their own.
    """
    given = {"endpoint": wanted.endpoint, "bucket": wanted.bucket, "prefix": wanted.prefix, "region": wanted.region}
    variables = []
    for name, key in _STORAGE.items():
        value = given.get(key)
        variables.append(plain(name, value) if value is not None else from_secret(name, secret, key, optional=True))
    variables += [plain(f"PINNACE_S3_DEFAULT_{key.upper()}", value) for key, value in sorted(defaults.items()) if value]
    return variables


def progress(url: str, ca: str) -> list[Env]:
    """Where to report; nothing when there is no progress server."""
    if not url:
        return []
    return [plain("PINNACE_PROGRESS_URL", url), *([plain("PINNACE_PROGRESS_CA", ca)] if ca else [])]


def tracking(wanted: Tracking) -> list[Env]:
    return [from_secret("WANDB_API_KEY", wanted.wandb.secret_name, "apiKey", optional=False)] if wanted.wandb else []


def merged(ours: Iterable[Env], users: Iterable[Env]) -> list[Env]:
    """Ours, with the user's values where both name a variable (the API keeps users from naming ours that matter)."""
    variables = {each["name"]: each for each in ours}
    variables.update({each["name"]: each for each in users})
    return list(variables.values())


def plain(name: str, value: str) -> Env:
    # The kubelet expands $(NAME) in values; $$ keeps a user's text as it is.
    return {"name": name, "value": value.replace("$(", "$$(")}


def from_secret(name: str, secret: str, key: str, *, optional: bool) -> Env:
    reference = {"name": secret, "key": key, **({"optional": True} if optional else {})}
    return {"name": name, "valueFrom": {"secretKeyRef": reference}}


def _field(name: str, path: str) -> Env:
    return {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}
