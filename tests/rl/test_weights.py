"""Published policies: there whole, or not there; in order; on disk and in a real S3."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from pathlib import Path

import boto3
import pytest
from aiohttp.test_utils import TestServer
from pinnace.rl.control.mirror import Mirror, MirrorClient
from pinnace.rl.rollout import EngineUnavailable
from pinnace.rl.weights import PROBE, DiskWeights, Probe, S3Weights, VersionTaken, Weights
from pinnace.storage import S3Settings, Storage

from e2e.s3 import ACCESS_KEY, SECRET_KEY, S3Server

PROBED = Probe(ids=(1, 2), logprobs=(-0.25, -1.5))


def writer(text: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / "model.safetensors").write_text(text)
        (folder / PROBE).write_text(PROBED.dump())

    return write


@pytest.fixture
def storage(s3: S3Server) -> Storage:
    bucket = f"test-{secrets.token_hex(6)}"
    keys = {"aws_access_key_id": ACCESS_KEY, "aws_secret_access_key": SECRET_KEY, "region_name": "us-east-1"}
    boto3.client("s3", endpoint_url=s3.endpoint, **keys).create_bucket(Bucket=bucket)
    return Storage(S3Settings(bucket=bucket, endpoint=s3.endpoint, access_key=ACCESS_KEY, secret_key=SECRET_KEY))


@pytest.fixture(params=["disk", "s3"])
def weights(request: pytest.FixtureRequest, tmp_path: Path) -> Weights:
    if request.param == "disk":
        return DiskWeights(tmp_path / "weights")
    storage: Storage = request.getfixturevalue("storage")
    return S3Weights(storage, storage.settings.root / tmp_path.name)


def test_the_newest_is_what_was_published_last(weights: Weights) -> None:
    assert weights.newest() is None
    for version in (0, 1, 5):
        published = weights.publish(version, writer(f"v{version}"))
        assert weights.newest() == published
        assert weights.probe(published) == PROBED


@pytest.mark.parametrize("version", [2, 3])
def test_versions_only_grow(weights: Weights, version: int) -> None:
    weights.publish(3, writer("v3"))
    with pytest.raises(VersionTaken, match="after 3"):
        weights.publish(version, writer("other"))


def test_a_writer_that_dies_leaves_the_version_before(tmp_path: Path) -> None:
    weights = DiskWeights(tmp_path)
    first = weights.publish(0, writer("v0"))

    def die(folder: Path) -> None:
        (folder / "model.safetensors").write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        weights.publish(1, die)
    assert weights.newest() == first
    assert weights.publish(1, writer("v1")).version == 1


def test_old_versions_go_but_not_the_one_that_may_still_be_loading(tmp_path: Path) -> None:
    weights = DiskWeights(tmp_path)
    for version in range(4):
        weights.publish(version, writer(f"v{version}"))
    assert sorted(path.name for path in tmp_path.glob("[0-9]*")) == ["00000002", "00000003"]


async def test_a_mirror_fetches_a_verified_version_to_the_servers_disk(storage: Storage, tmp_path: Path) -> None:
    weights = S3Weights(storage, storage.settings.root / "mirrored")
    published = weights.publish(4, writer("v4"))
    async with TestServer(Mirror(storage, tmp_path, key="k").app()) as served:
        url = str(served.make_url("")).rstrip("/")
        path = Path(await MirrorClient(url, key="k")(published))
        assert (path / "model.safetensors").read_text() == "v4"
        with pytest.raises(EngineUnavailable, match="401"):
            await MirrorClient(url, key="other")(published)
