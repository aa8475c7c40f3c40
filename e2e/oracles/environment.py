"""Python environments of other people's programs, below the cache folder: made once from locks with hashes."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from e2e.apiserver import CACHE
from e2e.locks import REQUIREMENTS, uv


def python_of(
    name: str, locks: Sequence[str], *, also: Sequence[Path] = (), finish: Callable[[Path], None] | None = None
) -> Path:
    """The interpreter of an environment that has `locks` (names in `requirements/`); made if it is not there.

    Args:
        also: other files that the environment is made of; it is made anew when one changes.
        finish: what is left to do, given the environment's folder.
    """
    files = [REQUIREMENTS / f"{lock}.txt" for lock in locks]
    content = hashlib.sha256(b"".join(path.read_bytes() for path in (*files, *also))).hexdigest()
    target = CACHE / f"oracles/{name}-{content[:12]}"
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f"{target.name}.", dir=target.parent))
        base: list[str | Path] = [uv(), "--system-certs"]
        subprocess.run([*base, "venv", "-q", "--clear", "--python", sys.executable, partial], check=True)
        for file in files:
            options: list[str | Path] = [
                "--python",
                partial / "bin/python",
                "--require-hashes",
                "--no-deps",
                "-r",
                file,
            ]
            subprocess.run([*base, "pip", "install", "-q", *options], check=True)
        if finish:
            finish(partial)
        partial.rename(target)
    return target / "bin/python"
