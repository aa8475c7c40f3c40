"""The two programs that can build an image: buildah, which needs no daemon, and Docker."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from e2e.images.errors import ImageError
from e2e.images.recipe import BASE_SUITE, REPOSITORY, Recipe, version
from e2e.images.store import Store

CACHE = Path(os.environ.get("PINNACE_CACHE") or Path.home() / ".cache/pinnace").absolute()
ROOT = CACHE / "images"
STORAGE = ROOT / "storage"
SCRATCH = ROOT / "tmp"
LOGS = ROOT / "logs"
#: uv's downloads, which the development environment fills as well.
PACKAGES = CACHE / "uv-cache"
BUNDLE = Path("/etc/ssl/certs/ca-certificates.crt")
BASE = f"localhost/pinnace/base:{BASE_SUITE}"
CONTENT_LABEL = "dev.pinnace.content"

Say = Callable[[str], None]


@dataclass(frozen=True)
class Order:
    """One build: what, for which device, and the labels that it gets."""

    recipe: Recipe
    device: str
    content: str
    revision: str

    @property
    def reference(self) -> str:
        return self.recipe.reference(self.device)

    def options(self) -> list[str]:
        """Options that buildah and docker both take."""
        arguments = {**self.recipe.arguments(self.device), "VERSION": version(), "REVISION": self.revision}
        return [
            *("-f", str(self.recipe.dockerfile), "-t", self.reference, "--label", f"{CONTENT_LABEL}={self.content}"),
            *(word for name, value in arguments.items() for word in ("--build-arg", f"{name}={value}")),
        ]


class Engine(Protocol):
    """Builds images and says what is built."""

    name: str

    def base(self, say: Say) -> str:
        """Provide the base image; returns a text that identifies its content."""

    def labels(self, reference: str) -> Mapping[str, str]:
        """Labels of an image, empty when it is not there."""

    def build(self, order: Order, say: Say) -> None:
        """Build and tag; ImageError with the end of the log when it fails."""


class Buildah:
    """buildah with a storage of its own in the cache, as root, without a daemon."""

    name = "buildah"

    def __init__(self) -> None:
        for folder in (STORAGE, SCRATCH, LOGS, PACKAGES):
            folder.mkdir(parents=True, exist_ok=True)
        self.store = Store(STORAGE)

    def base(self, say: Say) -> str:
        recipe = hashlib.sha256(" ".join(_debootstrap(Path("base.tar"))).encode()).hexdigest()[:12]
        stored = self.store.find(BASE)
        if stored and stored.labels.get(CONTENT_LABEL) == recipe:
            return stored.layers[0].digest
        say(f"base image from Debian {BASE_SUITE}'s packages (30 s)")
        with tempfile.TemporaryDirectory(dir=SCRATCH) as scratch:
            tar = Path(scratch, "base.tar")
            _logged(_debootstrap(tar), "base", environment=_environment())
            container = self._run("from", "scratch")
            try:
                self._run("add", "-q", container, str(tar), "/")
                label = f"{CONTENT_LABEL}={recipe}"
                self._run("config", "--cmd", "bash", "--env", "LANG=C.UTF-8", "--label", label, container)
                self._run("commit", "-q", container, BASE)
            finally:
                self._run("rm", container)
        return self.store.image(BASE).layers[0].digest

    def labels(self, reference: str) -> Mapping[str, str]:
        stored = self.store.find(reference)
        return stored.labels if stored else {}

    def build(self, order: Order, say: Say) -> None:
        # The caller's trust store and download cache are mounted for the build. Both land on paths that the base has,
        # so that not even an empty mount point stays in a layer. RUN --mount is not used: buildah 1.28's clean-up
        # of such a mount empties the layer.
        mounts = ["-v", f"{PACKAGES}:/mnt"]
        if BUNDLE.exists():
            mounts += ["-v", f"{BUNDLE}:{BUNDLE}:ro"]
        _logged(
            self._command(
                *("bud", "--isolation", "chroot", "--network", "host", "--layers", *mounts),
                *("--build-arg", f"BASE={BASE}", *order.options(), str(REPOSITORY)),
            ),
            order.recipe.name,
            environment=_environment(),
            say=say,
        )

    def prune(self) -> None:
        """Forget layers of builds that no named image is made of."""
        dangling = self._run("images", "-q", "--filter", "dangling=true").split()
        if dangling:
            subprocess.run(self._command("rmi", *dangling), check=False, capture_output=True, env=_environment())

    def archive(self, reference: str, target: Path) -> None:
        """Write a docker-archive, for clusters that are not ours (`kind load image-archive`)."""
        self._run("push", "-q", reference, f"docker-archive:{target}:{reference}")

    def _command(self, *words: str) -> list[str]:
        where = ("--root", str(STORAGE), "--runroot", str(ROOT / "run"), "--storage-driver", "overlay")
        return ["buildah", *where, *words]

    def _run(self, *words: str) -> str:
        done = subprocess.run(self._command(*words), check=False, capture_output=True, text=True, env=_environment())
        if done.returncode:
            raise ImageError(f"buildah {words[0]} failed: {done.stderr.strip()[-800:]}")
        return done.stdout.strip()


class Docker:
    """A running Docker engine, with its own storage and its python:3.11-slim base."""

    name = "docker"

    def base(self, say: Say) -> str:
        _ = say  # Docker fetches the base of the Dockerfile by itself
        return "python:3.11-slim-bookworm"

    def labels(self, reference: str) -> Mapping[str, str]:
        template = "{{range $k, $v := .Config.Labels}}{{$k}}={{$v}}\n{{end}}"
        done = subprocess.run(
            ["docker", "image", "inspect", "--format", template, reference],
            check=False,
            capture_output=True,
            text=True,
        )
        return dict(line.partition("=")[::2] for line in done.stdout.splitlines() if "=" in line)

    def build(self, order: Order, say: Say) -> None:
        _logged(["docker", "build", *order.options(), str(REPOSITORY)], order.recipe.name, environment=None, say=say)


def docker_runs() -> bool:
    """Whether a Docker engine answers."""
    if not shutil.which("docker"):
        return False
    return subprocess.run(["docker", "info"], check=False, capture_output=True).returncode == 0


def _debootstrap(tar: Path) -> list[str]:
    excluded = ("doc", "man", "locale", "info")
    return [
        *("mmdebstrap", "--quiet", "--variant=minbase"),
        # Headers, as the official Python images have them: torch's extensions and Triton compile against them.
        "--include=ca-certificates,netbase,python3-dev,python3-venv,tzdata",
        *(f"--dpkgopt=path-exclude=/usr/share/{each}/*" for each in excluded),
        '--customize-hook=ln -sf python3 "$1/usr/bin/python"',
        # mmdebstrap leaves the builder's name servers and host name behind.
        '--customize-hook=: > "$1/etc/resolv.conf"; : > "$1/etc/hostname"; rm -rf "$1"/var/log/* "$1"/var/cache/*',
        *(BASE_SUITE, str(tar)),
    ]


def _environment() -> dict[str, str]:
    """What a build may see of the caller's environment; temporary files go to the cache's disk."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return {"HOME": "/root", **kept, "TMPDIR": str(SCRATCH), "LC_ALL": "C.UTF-8"}


def _logged(command: list[str], name: str, *, environment: dict[str, str] | None, say: Say | None = None) -> None:
    """Run `command` into LOGS/<name>.log and tell `say` each build step; ImageError ends with the log's last lines."""
    LOGS.mkdir(parents=True, exist_ok=True)
    log = LOGS / f"{name}.log"
    recent: list[str] = []
    started = time.monotonic()
    with (
        log.open("w") as file,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", env=environment
        ) as process,
    ):
        for line in process.stdout or ():
            file.write(line)
            file.flush()
            recent = [*recent[-14:], line.rstrip()[:300]]
            if say and " STEP " in line:
                say(f"{time.monotonic() - started:4.0f} s {line.strip()[:110]}")
    if process.returncode:
        tail = "\n  ".join(recent)
        raise ImageError(f"{name}: {command[0]} ended with {process.returncode}; the whole log is {log}\n  {tail}")
