"""What must be there before anything is built; each problem is one line with its remedy."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

from e2e.images.engine import ROOT, STORAGE, Say
from e2e.images.errors import ImageError
from e2e.images.recipe import SHARED_MIB, Recipe

#: Programs of the build, by the Debian package that has them.
PROGRAMS = {"buildah": "buildah", "runc": "runc", "mmdebstrap": "mmdebstrap"}
#: Downloads of a heavy image in MiB, which stay in the cache.
DOWNLOAD_MIB = 900
BASE_MIB = 250


def disk_needed(to_build: Iterable[Recipe], *, shared_there: bool) -> int:
    """MiB that building `to_build` adds: layers, downloads, and as much again once a containerd has them."""
    recipes = list(to_build)
    heavy = [recipe for recipe in recipes if recipe.heavy]
    layers = sum(recipe.own_mib for recipe in recipes)
    if recipes and not shared_there:
        layers += BASE_MIB + (SHARED_MIB if heavy else 0)
    return layers * 2 + DOWNLOAD_MIB * len(heavy)


def check_disk(needed_mib: int, say: Say, folder: Path = ROOT) -> None:
    """Say what is needed and free; ImageError when it does not fit."""
    free = shutil.disk_usage(_existing(folder)).free // (1 << 20)
    say(f"disk: {needed_mib / 1024:.1f} GiB needed (layers twice, downloads), {free / 1024:.1f} GiB free")
    if free < needed_mib:
        raise ImageError(
            f"{folder} has {free / 1024:.1f} GiB free and this needs {needed_mib / 1024:.1f} GiB: "
            "free some, or put the cache on a bigger disk with PINNACE_CACHE"
        )


def check_machine(say: Say) -> None:
    """Root and buildah's programs, installed when they are missing."""
    if os.geteuid() != 0:
        raise ImageError("building images needs root: run as root, or use --engine docker")
    missing = sorted(package for program, package in PROGRAMS.items() if not shutil.which(program))
    if not missing:
        return
    if not shutil.which("apt-get"):
        raise ImageError(f"{', '.join(missing)} missing: install them, this system has no apt-get")
    say(f"installing {', '.join(missing)}")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for step in (["update"], ["install", "-y", "--no-install-recommends", *missing]):
        done = subprocess.run(["apt-get", "-q", *step], check=False, capture_output=True, text=True, env=environment)
        if done.returncode:
            why = done.stderr.strip()[-400:]
            raise ImageError(f"apt-get {step[0]} failed, install {', '.join(missing)} by hand: {why}")


def shared_layers_there() -> bool:
    """Whether base and torch layers were built before (a guess from the storage's presence, for the disk estimate)."""
    return any((STORAGE / "overlay-layers").glob("*.tar-split.gz"))


def _existing(folder: Path) -> Path:
    return next(each for each in (folder, *folder.parents) if each.exists())
