"""What lies in buildah's storage: images, their layers, and a layer's exact tar stream.

`buildah push` writes all layers of an image, gigabytes each time. Storage also keeps, for every layer, the record from
which the tar it was made of can be reproduced byte by byte (tar-split: headers and padding verbatim, file bodies by
name). So one layer can be read alone, and no second copy of the layers has to be kept for export.
"""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from e2e.images.errors import ImageError

_CHUNK = 1 << 20
_FILE, _SEGMENT = 1, 2  # types of tar-split's entries


@dataclass(frozen=True)
class Layer:
    """A layer in storage: `digest` of its uncompressed tar, and that tar's size in bytes."""

    id: str
    digest: str
    size: int


@dataclass(frozen=True)
class StoredImage:
    """An image in storage with its manifest and config exactly as their digests want them."""

    id: str
    names: tuple[str, ...]
    manifest: bytes
    config: bytes
    layers: tuple[Layer, ...]

    @property
    def labels(self) -> dict[str, str]:
        return dict(json.loads(self.config).get("config", {}).get("Labels") or {})

    @property
    def size(self) -> int:
        """Bytes of all layers."""
        return sum(layer.size for layer in self.layers)


class Store:
    """Read access to the storage below `root` (driver overlay)."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def images(self) -> list[StoredImage]:
        """Every image that has a name."""
        listing = self._root / "overlay-images/images.json"
        if not listing.exists():
            return []
        layers = {each["id"]: each for each in json.loads((self._root / "overlay-layers/layers.json").read_text())}
        return [self._image(each, layers) for each in json.loads(listing.read_text()) if each.get("names")]

    def image(self, reference: str) -> StoredImage:
        """The image called `reference`; ImageError when there is none."""
        for image in self.images():
            if reference in image.names:
                return image
        raise ImageError(f"{reference} is not built: run `make images`")

    def find(self, reference: str) -> StoredImage | None:
        """The image called `reference`, or None."""
        return next((image for image in self.images() if reference in image.names), None)

    def tar(self, layer: Layer) -> Iterator[bytes]:
        """The layer's tar, byte for byte what `layer.digest` is the SHA-256 of."""
        tree = self._root / "overlay" / layer.id / "diff"
        for entry in self._record(layer):
            if entry["type"] == _SEGMENT:
                yield base64.b64decode(entry["payload"])
            elif entry["type"] == _FILE and entry.get("size"):
                yield from _body(tree / entry["name"].lstrip("/"), entry["size"])

    def names(self, layer: Layer) -> list[str]:
        """Every path in the layer, relative to the root, without reading a file."""
        return [each["name"].removeprefix("./").strip("/") for each in self._record(layer) if each["type"] == _FILE]

    def _record(self, layer: Layer) -> Iterator[dict[str, Any]]:
        with gzip.open(self._root / "overlay-layers" / f"{layer.id}.tar-split.gz", "rt") as record:
            yield from map(json.loads, record)

    def _image(self, image: dict[str, str], layers: dict[str, dict[str, str]]) -> StoredImage:
        folder = self._root / "overlay-images" / image["id"]
        chain: list[Layer] = []
        identity: str | None = image["layer"]
        while identity:
            layer = layers[identity]
            chain.append(Layer(identity, layer["diff-digest"], int(layer["diff-size"])))
            identity = layer.get("parent")
        return StoredImage(
            id=image["id"],
            names=tuple(image["names"]),
            manifest=(folder / "manifest").read_bytes(),
            config=(folder / _encoded(f"sha256:{image['id']}")).read_bytes(),
            layers=tuple(reversed(chain)),
        )


def _encoded(name: str) -> str:
    return "=" + base64.b64encode(name.encode()).decode()


def _body(path: Path, size: int) -> Iterator[bytes]:
    left = size
    with path.open("rb") as file:
        while left:
            chunk = file.read(min(_CHUNK, left))
            if not chunk:
                raise ImageError(f"{path} is shorter than its layer says: storage is damaged, run `make clean-cache`")
            left -= len(chunk)
            yield chunk
