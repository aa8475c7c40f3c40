"""deletionPolicy Delete takes the run's data, all of it, and nothing else."""

from __future__ import annotations

import json
import secrets

import pytest
from pinnace.cleanup import clean_up
from pinnace.outcome import InvalidSpec
from pinnace.storage import S3Settings, Storage

from e2e.s3 import ACCESS_KEY, SECRET_KEY, S3Server
from e2e.stored import raw_client


@pytest.fixture
def storage(s3: S3Server) -> Storage:
    bucket = f"test-{secrets.token_hex(6)}"
    raw_client(s3.endpoint).create_bucket(Bucket=bucket)
    return Storage(S3Settings(bucket=bucket, endpoint=s3.endpoint, access_key=ACCESS_KEY, secret_key=SECRET_KEY))


def test_only_the_run_is_deleted(storage: Storage) -> None:
    root = storage.settings.root
    for path in ("ns/sftjob/job/12345678/output/a", "ns/sftjob/job/12345678/history/b", "ns/sftjob/job/12345679/c"):
        storage.write(root / path, b"x")
    environ = {"PINNACE_JOB": json.dumps({"runPath": "ns/sftjob/job/12345678"})}
    assert clean_up(storage, environ) == 2
    assert clean_up(storage, environ) == 0
    assert [str(each.uri) for each in storage.list(root / "ns")] == [f"{root}/ns/sftjob/job/12345679/c"]


@pytest.mark.parametrize("job", ["", "{}", '{"runPath": "ns/sftjob"}', '{"runPath": ""}'])
def test_without_the_path_of_one_run_nothing_is_deleted(storage: Storage, job: str) -> None:
    storage.write(storage.settings.root / "ns/sftjob/other", b"x")
    with pytest.raises(InvalidSpec):
        clean_up(storage, {"PINNACE_JOB": job})
    assert len(list(storage.list(storage.settings.root / "ns"))) == 1
