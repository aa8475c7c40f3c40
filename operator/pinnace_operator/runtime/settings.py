"""The operator's settings: `PINNACE_OPERATOR_*` in its environment, checked at start."""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

PREFIX = "PINNACE_OPERATOR_"


class InvalidSettings(Exception):
    """A variable is unknown or has a bad value; the message names each one."""


class Settings(BaseModel):
    """One field a variable: `PINNACE_OPERATOR_LEASE_DURATION` is `lease_duration`. Times are in seconds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    watch_namespaces: tuple[str, ...] = Field((), description="comma-separated; empty: all namespaces (cluster-wide)")
    namespace: str = Field("pinnace-system", description="the operator's own: its Lease and TLS Secret live there")
    pod_name: str = Field(default_factory=lambda: f"local-{os.getpid()}", description="shown as the Lease's holder")

    image_registry: str = "localhost"
    image_tag: str = Field("", description="empty: the operator's own version")
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"

    storage_endpoint: str = Field("", description="the installation's S3, for jobs and namespaces that name none")
    storage_bucket: str = ""
    storage_prefix: str = ""
    storage_region: str = ""
    storage_secret_name: str = Field("pinnace-storage", description="Secret looked for in each job's namespace")
    no_progress_seconds: int = Field(3600, ge=0, description="no step for so long: Stalled/NoProgress; 0: never")

    progress_url: str = Field("", description="what pods post to; empty: https://pinnace-operator.<namespace>.svc:8443")
    progress_port: int = Field(8443, ge=0, le=65535)
    http_port: int = Field(8080, ge=0, le=65535, description="/metrics, /healthz, /readyz")
    bind: str = Field("0.0.0.0", description="address that both servers listen on")  # noqa: S104 -- a pod's own address

    gateway_egress_ports: tuple[Annotated[int, Field(ge=1, le=65535)], ...] = Field(
        (443, 6443), description="comma-separated; TCP ports that tool gateways may reach anywhere (the API server's)"
    )

    log_format: Literal["json", "text"] = "json"
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"

    workers: int = Field(4, ge=1, le=64)
    lease_duration: float = Field(15, ge=1)
    lease_margin: float = Field(5, gt=0, description="our writes stop this long before another replica may take over")
    lease_period: float = Field(2, gt=0)
    request_timeout: float = Field(4, gt=0, description="one request; shorter than lease_margin")
    resync_period: float = Field(300, gt=0)
    status_interval: float = Field(5, ge=0, description="shortest time between two progress-only status writes")
    backoff_base: float = Field(0.2, gt=0)
    backoff_cap: float = Field(60, gt=0)
    stalled_after: int = Field(8, ge=1, description="failures in a row until the resource says Stalled")
    watch_server_timeout: int = Field(290, ge=1, description="how long the API server keeps one watch open")
    watch_inactivity: float = Field(75, gt=0, description="a watch without event or bookmark for so long reconnects")
    liveness_watch_age: float = Field(300, gt=0, description="no byte on a watch for so long: not alive")
    liveness_key_age: float = Field(600, gt=0, description="the queue's oldest key this old: not alive")
    token_cache: float = Field(60, ge=0, description="for how long a reviewed token is believed")

    @field_validator("watch_namespaces", "gateway_egress_ports", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(each.strip() for each in value.split(",") if each.strip()) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _consistent(self) -> Settings:
        if self.request_timeout >= self.lease_margin:
            raise ValueError("request_timeout must be shorter than lease_margin, or a late write could pass the fence")
        if self.lease_margin + 2 * self.lease_period > self.lease_duration:
            raise ValueError("lease_duration must be at least lease_margin + 2 * lease_period")
        return self

    @property
    def namespaces(self) -> tuple[str | None, ...]:
        """What to list and watch: names, or (None,) for all."""
        return self.watch_namespaces or (None,)

    @property
    def pods_progress_url(self) -> str:
        return self.progress_url or f"https://pinnace-operator.{self.namespace}.svc:{self.progress_port}"

    @property
    def identity(self) -> str:
        """Unique for each process, so that a restarted container never takes a Lease for its own."""
        return f"{self.pod_name}_{_PROCESS}"


_PROCESS = uuid.uuid4().hex[:8]


def load(environment: Mapping[str, str] | None = None) -> Settings:
    """Settings from the environment.

    Raises:
        InvalidSettings: names every unknown variable and every bad value.
    """
    source = os.environ if environment is None else environment
    given = {name.removeprefix(PREFIX).lower(): value for name, value in source.items() if name.startswith(PREFIX)}
    try:
        return Settings.model_validate(given)
    except ValidationError as error:
        lines = []
        for each in error.errors():
            name = "_".join(str(part) for part in each["loc"][:1])
            lines.append(f"{PREFIX}{name.upper()}: {each['msg']}" if name else each["msg"])
        raise InvalidSettings("the operator's settings are wrong:\n  " + "\n  ".join(lines)) from None
