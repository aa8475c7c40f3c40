"""Images in containerd: what is there, and importing what is not."""

from __future__ import annotations

import json
import subprocess
import tarfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from e2e.cluster.errors import ClusterError
from e2e.cluster.paths import BIN, Run

NAMESPACE = "k8s.io"


@dataclass(frozen=True)
class ArchivedImage:
    """An image in a tar: its names and the digest of its configuration, which is what identifies an image."""

    references: tuple[str, ...]
    config_digest: str


def inspect(archive: Path) -> list[ArchivedImage]:
    """What images a docker-archive or an OCI layout tar holds.

    Raises:
        ClusterError: it is neither, or an image in it has no name.
    """
    try:
        with tarfile.open(archive) as tar:
            names = {name.removeprefix("./") for name in tar.getnames()}
            found = _docker(tar) if "manifest.json" in names else _oci(tar) if "index.json" in names else []
    except (tarfile.TarError, KeyError, OSError, ValueError) as error:
        raise ClusterError(f"{archive} is not an image archive (docker-archive or OCI layout tar): {error}") from error
    if not found or not all(each.references for each in found):
        raise ClusterError(f"{archive} holds no named image: save it with its name (NAME:TAG)")
    return found


def _read(tar: tarfile.TarFile, name: str) -> Any:
    for candidate in (name, f"./{name}"):
        try:
            file = tar.extractfile(candidate)
        except KeyError:
            continue
        if file:
            return json.load(file)
    raise KeyError(name)


def _docker(tar: tarfile.TarFile) -> list[ArchivedImage]:
    return [
        ArchivedImage(tuple(each["RepoTags"] or ()), "sha256:" + Path(each["Config"]).name.removesuffix(".json"))
        for each in _read(tar, "manifest.json")
    ]


def _oci(tar: tarfile.TarFile) -> list[ArchivedImage]:
    images = []
    for entry in _read(tar, "index.json")["manifests"]:
        notes = entry.get("annotations", {})
        name = notes.get("io.containerd.image.name") or notes.get("org.opencontainers.image.ref.name")
        manifest = _read(tar, "blobs/" + entry["digest"].replace(":", "/"))
        images.append(ArchivedImage((name,) if name else (), manifest["config"]["digest"]))
    return images


@dataclass(frozen=True)
class Containerd:
    """The containerd of one cluster."""

    run: Run

    def ctr(self, *arguments: str) -> str:
        command = [str(BIN / "ctr"), "--address", str(self.run.socket), "--namespace", NAMESPACE, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise ClusterError(f"ctr {' '.join(arguments)}: {done.stderr.strip()[-2000:]}")
        return done.stdout

    def images(self) -> dict[str, str]:
        """Every image's name, to the digest of its manifest."""
        rows = (line.split() for line in self.ctr("images", "list").splitlines()[1:])
        return {row[0]: row[2] for row in rows}

    def config_digest(self, reference: str) -> str | None:
        """What identifies the image that goes by `reference`, or None when there is none."""
        digest = self.images().get(reference)
        return json.loads(self.ctr("content", "get", digest))["config"]["digest"] if digest else None

    def load(self, archive: Path) -> list[str]:
        """Import an archive; layers that the content store has may be absent from it. Returns the names of its images.

        Nothing is read but the index when all of its images are there already.

        Raises:
            ClusterError: no image archive, or a layer is neither in it nor here.
        """
        images = inspect(archive)
        if not all(self.config_digest(name) == each.config_digest for each in images for name in each.references):
            # --local: the transfer service would insist on layers that are unpacked already.
            self.ctr("images", "import", "--local", str(archive))
        return [name for each in images for name in each.references]

    def remove_containers(self) -> None:
        """Remove every container with its snapshot; images stay. Their processes must have been killed before.

        Raises:
            ClusterError: some are left after 20 s.
        """
        deadline = time.monotonic() + 20
        while containers := self.ctr("containers", "list", "--quiet").split():
            try:
                tasks = self.ctr("tasks", "list", "--quiet").split()
                if tasks:
                    self.ctr("tasks", "delete", "--force", *tasks)
                self.ctr("containers", "delete", *containers)
            except ClusterError:
                # A shim that ends while it is asked: containerd notices in a moment that its task is gone.
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)
