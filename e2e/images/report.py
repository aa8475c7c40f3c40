"""Sizes of the built images: each one, what they share, and what the cache holds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from e2e.images.store import StoredImage


@dataclass(frozen=True)
class SetSize:
    """Bytes of a set of images: with every layer counted once, and as if nothing were shared."""

    distinct: int
    total: int

    @property
    def shared(self) -> int:
        return self.total - self.distinct


def set_size(images: Sequence[StoredImage]) -> SetSize:
    """How large `images` are together."""
    layers = {layer.digest: layer.size for image in images for layer in image.layers}
    return SetSize(sum(layers.values()), sum(image.size for image in images))


def own_bytes(image: StoredImage, images: Sequence[StoredImage]) -> int:
    """Bytes of the layers that only `image` has among `images`."""
    users = Counter(digest for each in images for digest in {layer.digest for layer in each.layers})
    return sum(layer.size for layer in image.layers if users[layer.digest] == 1)


def folder_bytes(folder: Path) -> int:
    """Bytes that `folder` takes on disk, hard links counted once."""
    seen: set[tuple[int, int]] = set()
    total = 0
    for path in folder.rglob("*"):
        status = path.lstat()
        if (status.st_dev, status.st_ino) not in seen:
            seen.add((status.st_dev, status.st_ino))
            total += status.st_blocks * 512
    return total


def table(images: Sequence[StoredImage], seconds: dict[str, str]) -> Table:
    """One row an image; `seconds` says per reference how long it took, or that it was up to date."""
    result = Table(title="Images")
    result.add_column("image", no_wrap=True)
    for title in ("size", "own layers", "our code", "layers", "revision", "built"):
        result.add_column(title, justify="right")
    for image in images:
        name = image.names[0]
        result.add_row(
            name.removeprefix("localhost/"),
            f"{image.size / 1e6:,.0f} MB",
            f"{own_bytes(image, images) / 1e6:,.0f} MB",
            f"{image.layers[-1].size / 1e6:.1f} MB",
            str(len(image.layers)),
            _short(image.labels.get("org.opencontainers.image.revision", "?")),
            seconds.get(name, ""),
        )
    return result


def _short(revision: str) -> str:
    commit, _, dirty = revision.partition("-")
    return commit[:9] + (f"-{dirty}" if dirty else "")
