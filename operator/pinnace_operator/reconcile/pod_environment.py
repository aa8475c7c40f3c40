"""What the pods of every job are told, from the spec and the installation."""

from __future__ import annotations

from typing import Any

from pinnace_operator.api.job import JobSpec
from pinnace_operator.builders import environment
from pinnace_operator.builders.identity import Identity
from pinnace_operator.builders.images import Images
from pinnace_operator.reconcile.job import Models
from pinnace_operator.reconcile.plan import OperatorSettings


def variables(
    identity: Identity, spec: JobSpec, settings: OperatorSettings, models: Models, first_attempt: int = 0
) -> list[dict[str, Any]]:
    """The environment of docs/contracts.md §2 that all kinds share."""
    defaults = settings.storage
    known = {"endpoint": defaults.endpoint, "bucket": defaults.bucket, "prefix": defaults.prefix}
    return [
        environment.job(identity, spec.to_manifest(), models=models, first_attempt=first_attempt),
        *environment.pod(),
        *environment.storage(spec.storage, {**known, "region": defaults.region}, secret=spec.storage.secret_name),
        *environment.progress(settings.progress_url, settings.progress_ca),
    ]


def images(settings: OperatorSettings) -> Images:
    """Where the pods' images come from."""
    return Images(registry=settings.image_registry, tag=settings.image_tag, pull_policy=settings.image_pull_policy)
