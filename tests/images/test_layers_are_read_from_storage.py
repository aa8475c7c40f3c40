"""One layer's exact tar out of buildah's storage, and archives that leave known layers out."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import tarfile
from pathlib import Path

import pytest

from e2e.images.errors import ImageError
from e2e.images.load import archive, chain_ids
from e2e.images.preflight import check_machine
from e2e.images.store import Layer, Store

NAME = "localhost/pinnace-test/layers:1"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A storage with an image of two layers that hold what tar finds hard."""
    check_machine(print)
    root = tmp_path_factory.mktemp("storage")
    first, second = root / "first", root / "second"
    (first / "deep" / ("d" * 120)).mkdir(parents=True)
    (first / "deep" / ("d" * 120) / "long.txt").write_text("long path")
    (first / "big").write_bytes(os.urandom((1 << 20) + 7))
    (first / "empty").touch()
    (first / "hard").hardlink_to(first / "big")
    (first / "soft").symlink_to("big")
    (first / "naïve").write_text("not ASCII")
    second.mkdir()
    (second / "big").write_text("replaced")

    def buildah(*words: str) -> str:
        where = ("--root", str(root / "storage"), "--runroot", str(root / "run"), "--storage-driver", "overlay")
        environment = {**os.environ, "TMPDIR": str(root)}
        done = subprocess.run(["buildah", *where, *words], check=True, capture_output=True, text=True, env=environment)
        return done.stdout.strip()

    (root / "Dockerfile").write_text("FROM scratch\nCOPY first /\nCOPY second /\nLABEL a=b\n")
    buildah("bud", "--layers", "--isolation", "chroot", "-t", NAME, "-f", str(root / "Dockerfile"), str(root))
    return Store(root / "storage")


def test_every_layer_is_reproduced_byte_by_byte(store: Store) -> None:
    image = store.image(NAME)
    assert len(image.layers) == 2
    for layer in image.layers:
        body = b"".join(store.tar(layer))
        assert (f"sha256:{hashlib.sha256(body).hexdigest()}", len(body)) == (layer.digest, layer.size)


def test_names_are_listed_without_reading_files(store: Store) -> None:
    first, second = store.image(NAME).layers
    assert {"big", "empty", "hard", "soft", "naïve", f"deep/{'d' * 120}/long.txt"} <= set(store.names(first))
    assert "big" in store.names(second)


def test_an_archive_holds_only_the_layers_asked_for(store: Store) -> None:
    image = store.image(NAME)
    stream = b"".join(archive(NAME, image, image.layers[1:], store))
    with tarfile.open(fileobj=io.BytesIO(stream)) as tar:
        blobs = {Path(name).name for name in tar.getnames() if name.startswith("blobs/")}
    expected = {hashlib.sha256(body).hexdigest() for body in (image.manifest, image.config)}
    assert blobs == expected | {image.layers[1].digest.removeprefix("sha256:")}
    assert len(stream) < image.layers[0].size


def test_labels_are_read(store: Store) -> None:
    assert store.image(NAME).labels["a"] == "b"


def test_an_image_that_is_not_built_names_the_remedy(store: Store) -> None:
    assert store.find("localhost/absent:1") is None
    with pytest.raises(ImageError, match="make images"):
        store.image("localhost/absent:1")


def test_chain_ids_follow_the_specification() -> None:
    one, two = Layer("1", "sha256:aa", 1), Layer("2", "sha256:bb", 1)
    linked = hashlib.sha256(b"sha256:aa sha256:bb").hexdigest()
    assert chain_ids([one, two]) == ["sha256:aa", f"sha256:{linked}"]
