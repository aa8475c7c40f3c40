"""Real parts that many tests share: one API server and one S3 a session."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from e2e.apiserver import ApiServer, api_server
from e2e.s3 import S3Server, s3_server


@pytest.fixture(scope="session")
def apiserver() -> Iterator[ApiServer]:
    """A real kube-apiserver; tests keep to namespaces of their own."""
    with api_server() as server:
        yield server


@pytest.fixture(scope="session")
def s3() -> Iterator[S3Server]:
    """A real SeaweedFS; tests keep to buckets of their own."""
    with s3_server() as server:
        yield server
