"""Where the object store is and how patiently to talk to it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from pinnace.storage.errors import InvalidName, StorageUnavailable
from pinnace.storage.uri import S3Uri

_DEFAULTS = {
    "PINNACE_S3_ENDPOINT": "PINNACE_S3_DEFAULT_ENDPOINT",
    "PINNACE_S3_BUCKET": "PINNACE_S3_DEFAULT_BUCKET",
    "PINNACE_S3_PREFIX": "PINNACE_S3_DEFAULT_PREFIX",
    "AWS_REGION": "PINNACE_S3_DEFAULT_REGION",
}
"""What the operator's chart sets for the installation: Kubernetes can't say "this Secret's key, else that value"."""


@dataclass(frozen=True)
class Patience:
    """Bounds of one request. All times in seconds.

    Attributes:
        connect: until a connection must stand.
        read: between two bytes of an answer.
        attempts: tries of one request, with exponential back-off, before `StorageUnavailable`.
    """

    connect: float = 5
    read: float = 60
    attempts: int = 4


@dataclass(frozen=True)
class S3Settings:
    """What `Storage` needs to know. Without keys, boto3's own chain finds them (web identity, instance profile).

    Attributes:
        bucket: where runs are written.
        prefix: folder inside the bucket; may be empty.
        endpoint: `http(s)://host[:port]`; None for AWS.
        region: S3 region; most S3-compatible servers ignore it.
        access_key, secret_key, session_token: credentials; never shown.
        patience: time limits and attempts of one request.
        part_bytes: size of one part of a multipart upload; a file up to this size is one request.
        concurrency: requests in flight at once. Memory is bounded by about (concurrency + 4) · part_bytes.
    """

    bucket: str
    prefix: str = ""
    endpoint: str | None = None
    region: str = "us-east-1"
    access_key: str | None = field(default=None, repr=False)
    secret_key: str | None = field(default=None, repr=False)
    session_token: str | None = field(default=None, repr=False)
    patience: Patience = Patience()
    part_bytes: int = 8 << 20
    concurrency: int = 8

    @classmethod
    def from_env(cls, environ: Mapping[str, str] = os.environ) -> S3Settings:
        """Reads `PINNACE_S3_*`, `AWS_*` and, for what they lack, `PINNACE_S3_DEFAULT_*`.

        Raises:
            StorageUnavailable: naming the variable and the Secret's key.
        """

        def given(name: str, default: str = "") -> str:
            """The job's or the Secret's value, else the installation's."""
            return environ.get(name) or environ.get(_DEFAULTS[name]) or default

        bucket = given("PINNACE_S3_BUCKET")
        if not bucket:
            raise StorageUnavailable(
                "PINNACE_S3_BUCKET is not set: add the key `bucket` to the Secret named by spec.storage.secretName "
                "(default pinnace-storage), or set spec.storage.bucket"
            )
        endpoint = given("PINNACE_S3_ENDPOINT") or None
        if endpoint and not endpoint.startswith(("http://", "https://")):
            raise StorageUnavailable(f"PINNACE_S3_ENDPOINT is {endpoint!r}: write http://host:port or https://host")
        access, secret = environ.get("AWS_ACCESS_KEY_ID") or None, environ.get("AWS_SECRET_ACCESS_KEY") or None
        if (access is None) != (secret is None):
            missing = (
                "AWS_ACCESS_KEY_ID (Secret key `accessKeyId`)"
                if secret
                else "AWS_SECRET_ACCESS_KEY (Secret key `secretAccessKey`)"
            )
            raise StorageUnavailable(f"{missing} is not set: the Secret must hold both keys, or neither")
        settings = cls(
            bucket=bucket,
            prefix=given("PINNACE_S3_PREFIX").strip("/"),
            endpoint=endpoint,
            region=given("AWS_REGION", "us-east-1"),
            access_key=access,
            secret_key=secret,
            session_token=environ.get("AWS_SESSION_TOKEN") or None,
        )
        try:
            settings.root  # noqa: B018 - evaluated for its checks
        except InvalidName as error:
            raise StorageUnavailable(f"spec.storage or its Secret names no valid bucket and prefix: {error}") from None
        return settings

    @property
    def root(self) -> S3Uri:
        """The folder below which everything of this installation lies."""
        return S3Uri.parse(f"s3://{self.bucket}/{self.prefix}")
