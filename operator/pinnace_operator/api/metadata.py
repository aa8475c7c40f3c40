"""The part of an object's metadata that Pinnace reads, and what its name must look like."""

from __future__ import annotations

import re
from datetime import datetime

from pydantic import ConfigDict, Field

from pinnace_operator.api.base import ApiModel, Rule


class OwnerReference(ApiModel):
    """Who owns an object."""

    model_config = ConfigDict(extra="ignore")

    api_version: str
    kind: str
    name: str
    uid: str
    controller: bool = False


class ObjectMeta(ApiModel):
    """Metadata as the API server keeps it; fields that Pinnace does not use are left out."""

    model_config = ConfigDict(extra="ignore")

    name: str
    namespace: str = ""
    uid: str = ""
    generation: int = 0
    resource_version: str = ""
    creation_timestamp: datetime | None = None
    deletion_timestamp: datetime | None = None
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)
    finalizers: tuple[str, ...] = ()
    owner_references: tuple[OwnerReference, ...] = ()


_NAME = r"[a-z]([-a-z0-9]*[a-z0-9])?"


def name_rules(longest_pod_suffix: str) -> tuple[Rule, Rule]:
    """A job's name becomes that of a Service and starts its pods' names: DNS labels of at most 63 characters.

    JobSet keeps six more characters for a random suffix.
    """
    longest = 63 - len("-xxxxx") - len(longest_pod_suffix)
    return (
        Rule(
            f"size(self.metadata.name) <= {longest}",
            f"metadata.name: at most {longest} characters, because pods are named after the job: choose a shorter name",
            lambda job: len(job.metadata.name) <= longest,
        ),
        Rule(
            f"self.metadata.name.matches(r'^(?:{_NAME})$')",
            "metadata.name: must start with a letter and have only lower-case letters, digits and '-', because it "
            "becomes a DNS label: choose such a name",
            lambda job: re.fullmatch(_NAME, job.metadata.name) is not None,
        ),
    )
