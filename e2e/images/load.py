"""Into a containerd without a registry, moving only the layers that it does not have.

`ctr images import` reads an OCI archive. The one written here, into ctr's standard input, holds the manifest, the
config and just the layers whose snapshots containerd lacks; known layers are named but absent. Layers are discarded
from its content store once they are unpacked: it keeps one copy, the snapshot, and buildah's storage the other.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import tarfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from e2e.images.engine import STORAGE
from e2e.images.errors import ImageError
from e2e.images.store import Layer, Store, StoredImage

_BLOCK = 512


@dataclass(frozen=True)
class Containerd:
    """A running containerd: its socket, its namespace (Kubernetes looks in `k8s.io`) and the ctr that belongs to it."""

    socket: Path
    namespace: str = "k8s.io"
    ctr: Path = Path("ctr")
    snapshotter: str = "overlayfs"

    def command(self, *words: str) -> list[str]:
        return [str(self.ctr), "-a", str(self.socket.absolute()), "-n", self.namespace, *words]

    def output(self, *words: str) -> str:
        """What ctr prints; ImageError with its message when it fails."""
        done = subprocess.run(self.command(*words), check=False, capture_output=True, text=True)
        if done.returncode:
            raise ImageError(f"ctr {' '.join(words[:2])} failed: {done.stderr.strip()[-800:]}")
        return done.stdout

    def chains(self) -> set[str]:
        """Chain ids of the layer stacks that are unpacked here."""
        lines = self.output("snapshots", "--snapshotter", self.snapshotter, "ls").splitlines()[1:]
        return {fields[0] for line in lines if (fields := line.split()) and fields[-1] == "Committed"}

    def targets(self) -> dict[str, str]:
        """Manifest digest of every image by its name."""
        lines = self.output("images", "ls").splitlines()[1:]
        return {fields[0]: fields[2] for line in lines if len(fields := line.split()) > 2}


@dataclass(frozen=True)
class LoadReport:
    """What a load did: layers moved of all, bytes that went into containerd, and seconds."""

    reference: str
    layers: int
    layers_moved: int
    bytes_moved: int
    seconds: float

    def __str__(self) -> str:
        if not self.bytes_moved:
            return f"{self.reference}: already there"
        return (
            f"{self.reference}: {self.layers_moved} of {self.layers} layers, "
            f"{self.bytes_moved / 1e6:.1f} MB in {self.seconds:.1f} s"
        )


def load(reference: str, containerd: Containerd, store: Store | None = None) -> LoadReport:
    """Make the built image `reference` available in `containerd`; harmless and quick when it is there already.

    Raises ImageError when the image is not built or containerd refuses it.
    """
    started = time.monotonic()
    store = store or Store(STORAGE)
    image = store.image(reference)
    chains = containerd.chains()
    digest = f"sha256:{hashlib.sha256(image.manifest).hexdigest()}"
    missing = [layer for layer, chain in zip(image.layers, chain_ids(image.layers), strict=True) if chain not in chains]
    if not missing and containerd.targets().get(reference) == digest:
        return LoadReport(reference, len(image.layers), 0, 0, time.monotonic() - started)
    moved = _import(containerd, archive(reference, image, missing, store))
    return LoadReport(reference, len(image.layers), len(missing), moved, time.monotonic() - started)


def chain_ids(layers: Sequence[Layer]) -> list[str]:
    """The OCI chain id of every prefix of `layers` (image-spec, config.md, "Layer ChainID")."""
    chains: list[str] = []
    for layer in layers:
        link = hashlib.sha256(f"{chains[-1]} {layer.digest}".encode()).hexdigest() if chains else ""
        chains.append(f"sha256:{link}" if chains else layer.digest)
    return chains


def archive(reference: str, image: StoredImage, layers: Sequence[Layer], store: Store) -> Iterator[bytes]:
    """An OCI archive of `image` that holds only `layers`."""
    digest = hashlib.sha256(image.manifest).hexdigest()
    manifest = json.loads(image.manifest)
    index = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [
            {
                "mediaType": manifest["mediaType"],
                "digest": f"sha256:{digest}",
                "size": len(image.manifest),
                "annotations": {"io.containerd.image.name": reference},
            }
        ],
    }
    yield from _small("oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
    yield from _small(f"blobs/sha256/{digest}", image.manifest)
    yield from _small(f"blobs/{manifest['config']['digest'].replace(':', '/')}", image.config)
    for layer in {layer.digest: layer for layer in layers}.values():
        yield _header(f"blobs/{layer.digest.replace(':', '/')}", layer.size)
        yield from store.tar(layer)
        yield b"\0" * (-layer.size % _BLOCK)
    yield from _small("index.json", json.dumps(index).encode())
    yield b"\0" * (2 * _BLOCK)


def _header(name: str, size: int) -> bytes:
    entry = tarfile.TarInfo(name)
    entry.size = size
    return entry.tobuf(tarfile.GNU_FORMAT)


def _small(name: str, body: bytes) -> Iterator[bytes]:
    yield _header(name, len(body)) + body + b"\0" * (-len(body) % _BLOCK)


def _import(containerd: Containerd, chunks: Iterator[bytes]) -> int:
    """Feed `chunks` to ctr; returns how many bytes it took."""
    moved = 0
    options = ("--local", "--discard-unpacked-layers", "--snapshotter", containerd.snapshotter)
    with subprocess.Popen(
        containerd.command("images", "import", *options, "-"),
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    ) as process:
        moved = _feed(process.stdin, chunks)
        message = process.stderr.read().decode(errors="replace") if process.stderr else ""
    if process.returncode:
        raise ImageError(f"containerd refused the image: {message.strip()[-800:]}")
    return moved


def _feed(pipe: IO[bytes] | None, chunks: Iterator[bytes]) -> int:
    if pipe is None:
        raise ImageError("ctr has no standard input")
    moved = 0
    try:
        with pipe:
            for chunk in chunks:
                moved += pipe.write(chunk)
    except BrokenPipeError:
        return moved  # ctr gave up: its exit code and message say why
    return moved
