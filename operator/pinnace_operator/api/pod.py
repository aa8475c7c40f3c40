"""What users may set on pods: resources, and a bounded overlay of the pod template."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from pinnace_operator.api.affinity import Affinity
from pinnace_operator.api.base import ApiModel, ListType, Rule
from pinnace_operator.api.fields import Label, ObjectName, Quantity, is_quantity, quantity_value, whole

GPU = "nvidia.com/gpu"
ResourceList = Annotated[dict[str, Quantity], Field(max_length=16)]
LabelValue = Annotated[str, Field(max_length=63)]
LabelMap = Annotated[dict[str, LabelValue], Field(max_length=32)]


class Device(StrEnum):
    """What the pods compute on."""

    CPU = "cpu"
    CUDA = "cuda"


def _within_limits(resources: Resources) -> bool:
    limits = resources.limits or {}
    return all(
        quantity_value(asked) <= quantity_value(limits[name])
        for name, asked in (resources.requests or {}).items()
        if name in limits and is_quantity(asked) and is_quantity(limits[name])
    )


def _devices_equal(resources: Resources) -> bool:
    limits = resources.limits or {}
    asked = {name: amount for name, amount in (resources.requests or {}).items() if "/" in name}
    return all(name in limits and str(limits[name]) == str(amount) for name, amount in asked.items())


class Resources(ApiModel):
    """Compute resources of one pod, as in any container: `requests` reserve, `limits` cap."""

    requests: ResourceList | None = None
    """What the scheduler reserves, such as `{cpu: 8, memory: 64Gi}`."""
    limits: ResourceList | None = None
    """What the pod can't exceed, such as `{memory: 64Gi, nvidia.com/gpu: 8}`. Devices belong here."""

    rules = (
        Rule(
            "!has(self.requests) || !has(self.limits) || self.requests.all(k, !(k in self.limits)"
            " || !quantity(string(self.requests[k])).isGreaterThan(quantity(string(self.limits[k]))))",
            "resources.requests: a request is above its limit: lower the request or raise the limit",
            _within_limits,
            field=".requests",
        ),
        Rule(
            "!has(self.requests) || self.requests.all(k, !k.contains('/')"
            " || (has(self.limits) && k in self.limits && string(self.limits[k]) == string(self.requests[k])))",
            "resources.requests: devices can't be overcommitted: give the same amount in limits, or only in limits",
            _devices_equal,
            field=".requests",
        ),
    )


class Toleration(ApiModel):
    """Lets the pods run on nodes with a matching taint."""

    key: Annotated[str, Field(max_length=316)] | None = None
    """The taint's key; absent with operator Exists: all taints."""
    operator: Literal["Exists", "Equal"] = "Equal"
    """Whether the value matters."""
    value: LabelValue | None = None
    """The taint's value, with operator Equal."""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    """The taint's effect; absent: all."""
    toleration_seconds: Annotated[int, whole(0, 2**31 - 1)] | None = None
    """How long a NoExecute taint is tolerated; absent: for ever."""

    rules = (
        Rule(
            "self.operator != 'Exists' || !has(self.value)",
            "tolerations: operator Exists takes no value: remove value or use operator Equal",
            lambda each: each.operator != "Exists" or each.value is None,
        ),
        Rule(
            "self.operator != 'Equal' || has(self.key)",
            "tolerations: operator Equal needs a key: add key, or use operator Exists",
            lambda each: each.operator != "Equal" or each.key is not None,
        ),
        Rule(
            "!has(self.tolerationSeconds) || (has(self.effect) && self.effect == 'NoExecute')",
            "tolerations: tolerationSeconds needs effect NoExecute: set the effect or remove tolerationSeconds",
            lambda each: each.toleration_seconds is None or each.effect == "NoExecute",
        ),
    )


class ResourceClaim(ApiModel):
    """A device by dynamic resource allocation, offered to every container of the pod."""

    name: Label
    """Name of the claim within the pod."""
    resource_claim_name: ObjectName | None = None
    """A ResourceClaim that all pods share."""
    resource_claim_template_name: ObjectName | None = None
    """A ResourceClaimTemplate from which every pod gets a claim of its own."""

    rules = (
        Rule(
            "has(self.resourceClaimName) != has(self.resourceClaimTemplateName)",
            "resourceClaims: give exactly one of resourceClaimName and resourceClaimTemplateName",
            lambda claim: (claim.resource_claim_name is None) != (claim.resource_claim_template_name is None),
        ),
    )


class EnvVar(ApiModel):
    """An environment variable with a plain value. Secrets have fields of their own; they don't belong here."""

    name: Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
    """The variable's name, such as `NCCL_DEBUG`."""
    value: Annotated[str, Field(max_length=2048)] = ""
    """Its value."""

    rules = (
        Rule(
            "!self.name.startsWith('PINNACE_') && !self.name.startsWith('AWS_')",
            "env: names with PINNACE_ and AWS_ belong to the operator: use another name, or spec.storage for S3",
            lambda env: not env.name.startswith(("PINNACE_", "AWS_")),
        ),
    )


class ImagePullSecret(ApiModel):
    """A Secret of type kubernetes.io/dockerconfigjson."""

    name: ObjectName
    """Its name, in the job's namespace."""


_RESERVED = ("pinnace.dev/", "jobset.sigs.k8s.io/", "batch.kubernetes.io/", "app.kubernetes.io/managed-by")


def _not_reserved(field: str) -> Rule:
    reserved = " && ".join(f"!k.startsWith('{prefix}')" for prefix in _RESERVED)
    return Rule(
        f"!has(self.{field}) || self.{field}.all(k, {reserved})",
        f"podTemplate.{field}: keys of {', '.join(_RESERVED)} belong to the operator: use keys of your own",
        lambda pod: not any(key.startswith(_RESERVED) for key in getattr(pod, field) or {}),
        field=f".{field}",
    )


class PodTemplate(ApiModel):
    """What may be added to the operator's pods. Containers, volumes and security settings are the operator's alone."""

    labels: LabelMap | None = None
    """More labels."""
    annotations: Annotated[dict[str, Annotated[str, Field(max_length=4096)]], Field(max_length=32)] | None = None
    """More annotations, such as Kueue's topology request."""
    node_selector: LabelMap | None = None
    """Labels that the node must have."""
    tolerations: Annotated[tuple[Toleration, ...], Field(max_length=16), ListType()] = ()
    """Taints that the pods accept."""
    affinity: Affinity | None = None
    priority_class_name: ObjectName | None = None
    """PriorityClass of the pods."""
    runtime_class_name: ObjectName | None = None
    """RuntimeClass of the pods, such as `nvidia`."""
    scheduler_name: ObjectName | None = None
    """A scheduler other than the default one."""
    service_account_name: ObjectName | None = None
    """ServiceAccount of the pods; absent: the namespace's `default`. No token for the Kubernetes API is mounted."""
    image_pull_secrets: Annotated[tuple[ImagePullSecret, ...], Field(max_length=8), ListType("map", ("name",))] = ()
    """Secrets for registries that need a login."""
    resource_claims: Annotated[tuple[ResourceClaim, ...], Field(max_length=8), ListType("map", ("name",))] = ()
    """Devices by dynamic resource allocation."""
    env: Annotated[tuple[EnvVar, ...], Field(max_length=64), ListType("map", ("name",))] = ()
    """Environment variables of the container, for tuning such as NCCL's."""
    termination_grace_period_seconds: Annotated[int, whole(10, 3600)] = 120
    """Seconds that a pod has to write its checkpoint when it is asked to stop."""

    rules = (_not_reserved("labels"), _not_reserved("annotations"))
