"""The gateway of a ToolSandbox: the one address that agents call."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from pinnace_operator.api.base import ApiModel, Rule
from pinnace_operator.api.fields import ObjectName, whole
from pinnace_operator.api.pod import Resources


class AuthMode(StrEnum):
    """Who may call."""

    TOKEN = "Token"  # noqa: S105 -- a mode's name
    SERVICE_ACCOUNT = "ServiceAccount"


class GatewayAuth(ApiModel):
    """Who may call the gateway. There is no way to switch it off."""

    mode: AuthMode = AuthMode.TOKEN
    """Token: bearer tokens of a Secret. ServiceAccount: tokens of pods with audience `pinnace-tools`."""
    secret_name: ObjectName | None = None
    """With Token: a Secret with one key a tenant and its token as value.

    Absent: the operator makes `<name>-tokens` with a random token for the tenant `default`."""

    rules = (
        Rule(
            "self.mode == 'Token' || !has(self.secretName)",
            "gateway.auth.secretName: mode ServiceAccount takes no Secret: remove it, or use mode Token",
            lambda auth: auth.mode is AuthMode.TOKEN or auth.secret_name is None,
            field=".secretName",
        ),
    )


class GatewayScale(ApiModel):
    """How many gateways there are, decided by the operator from the calls that are under way."""

    min_replicas: Annotated[int, whole(1, 64)] = 1
    """Fewest pods."""
    max_replicas: Annotated[int, whole(1, 64)] = 4
    """Most pods."""
    target_in_flight: Annotated[int, whole(1, 100_000)] = 256
    """Calls that one gateway should have at a time."""
    cooldown_seconds: Annotated[int, whole(5, 86_400)] = 60
    """Pods are removed only when they were not needed for so long."""

    rules = (
        Rule(
            "self.minReplicas <= self.maxReplicas",
            "gateway.scale.minReplicas: it can't be above maxReplicas: lower it or raise maxReplicas",
            lambda scale: scale.min_replicas <= scale.max_replicas,
            field=".minReplicas",
        ),
    )


class Gateway(ApiModel):
    """The gateway: how many, who may call, and the bounds of a call."""

    replicas: Annotated[int, whole(1, 64)] = 1
    """Pods; with `scale`, how many to start with."""
    scale: GatewayScale | None = None
    """Let the operator decide the number of pods; absent: it is `replicas`."""
    auth: GatewayAuth = Field(default_factory=GatewayAuth)
    resources: Resources | None = None
    """Compute resources of each pod; absent: 100m CPU and 128Mi reserved, at most 1Gi."""
    default_timeout_seconds: Annotated[int, whole(1, 3600)] = 60
    """Longest time of a call, unless spec.tools says otherwise for its tool."""
    max_in_flight: Annotated[int, whole(1, 100_000)] = 1024
    """Calls that one gateway has at a time; more are answered `overloaded` with Retry-After."""
    max_queue_seconds: Annotated[int, whole(0, 3600)] = 10
    """Longest time that a call waits for a replica that is there but busy."""
    retry_budget_percent: Annotated[int, whole(0, 100)] = 20
    """Retries are at most this share of the calls, so that a failing server is not buried under them."""
    request_bytes: Annotated[int, whole(1024, 268_435_456)] = 4_194_304
    """Largest request."""
    result_bytes: Annotated[int, whole(1024, 268_435_456)] = 262_144
    """Largest part of a result that is returned; the rest is stored in S3 and returned as a reference."""
