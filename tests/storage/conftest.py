"""Buckets of their own on the shared SeaweedFS, and faults before it."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pinnace.storage import Patience, RunDirectory, S3Settings, Storage

from e2e.faults.s3proxy import S3Proxy
from e2e.s3 import ACCESS_KEY, SECRET_KEY, S3Server
from e2e.stored import PART, Tree, raw_client


@pytest.fixture
def raw(s3: S3Server) -> Any:
    """boto3 as another tool would use it."""
    return raw_client(s3.endpoint)


@pytest.fixture
def settings(s3: S3Server, raw: Any) -> S3Settings:
    """An empty bucket; little patience."""
    bucket = f"test-{secrets.token_hex(6)}"
    raw.create_bucket(Bucket=bucket)
    return S3Settings(
        bucket=bucket,
        prefix="team/a",
        endpoint=s3.endpoint,
        access_key=ACCESS_KEY,
        secret_key=SECRET_KEY,
        patience=Patience(connect=1, read=2, attempts=2),
        part_bytes=PART,
        concurrency=4,
    )


@pytest.fixture
def storage(settings: S3Settings) -> Storage:
    return Storage(settings)


@pytest.fixture
def run(storage: Storage) -> RunDirectory:
    return storage.run("ns/sftjob/job/12345678", retry_cap=0.1)


@pytest.fixture
def proxy(s3: S3Server) -> Iterator[S3Proxy]:
    with S3Proxy(s3.port).running() as running:
        yield running


@pytest.fixture
def proxied(settings: S3Settings, proxy: S3Proxy) -> Storage:
    """The same bucket, through `proxy`."""
    return Storage(replace(settings, endpoint=proxy.endpoint))


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """Makes folders of files: `tree("state", a=b"…")`; `big` bytes go into one more file of several parts."""

    def make(name: str = "state", /, *, big: int = 0, **files: bytes) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        for file, content in (files or {"weights.bin": b"weights", "empty": b""}).items():
            (folder / file).write_bytes(content)
        if big:
            (folder / "big.bin").write_bytes(secrets.token_bytes(1 << 20) * (big >> 20) + b"end")
        return folder

    return make
