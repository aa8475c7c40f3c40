"""What the storage tests and benchmarks share: a client that is not ours, and looks into folders and buckets."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from pinnace.storage import RunDirectory

from e2e.s3 import ACCESS_KEY, SECRET_KEY

PART = 5 << 20
Tree = Callable[..., Path]


def raw_client(endpoint: str) -> Any:
    """boto3 with its defaults."""
    import boto3
    from botocore.config import Config

    return boto3.session.Session().client(
        "s3",
        endpoint_url=endpoint,
        aws_access_key_id=ACCESS_KEY,
        aws_secret_access_key=SECRET_KEY,
        region_name="us-east-1",
        config=Config(s3={"addressing_style": "path"}),
    )


def save(run: RunDirectory, step: int, folder: Path, **commit: Any) -> None:
    """A durable checkpoint."""
    upload = run.checkpoints.begin(step)
    upload.add(folder, "state")
    upload.commit(**commit)
    run.checkpoints.wait(60)


def keys(raw: Any, bucket: str) -> list[str]:
    """All keys of a bucket."""
    pages = raw.get_paginator("list_objects_v2").paginate(Bucket=bucket)
    return [one["Key"] for page in pages for one in page.get("Contents", ())]


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below `folder`, by relative path."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}
