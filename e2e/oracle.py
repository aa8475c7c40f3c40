"""Inspect AI and its evals, in an environment of their own: the oracle that our graders and metrics are compared with.

Nothing of ours imports them. The environment is built once, from a lock with hashes, below the cache folder.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from e2e.locks import REQUIREMENTS, uv

_LOCK = REQUIREMENTS / "inspect.txt"


def inspect_python() -> Path:
    """The interpreter of the oracle's environment; built if it is not there (a minute, 600 MB)."""
    cache = Path(os.environ.get("PINNACE_CACHE", Path.home() / ".cache/pinnace"))
    folder, wanted = cache / "oracles/inspect", hashlib.sha256(_LOCK.read_bytes()).hexdigest()
    python, marker = folder / "bin/python", folder / ".synced"
    if not marker.is_file() or marker.read_text() != wanted:
        base: list[str | Path] = [uv(), "--system-certs"]
        subprocess.run([*base, "venv", "-q", "--clear", "--python", sys.executable, folder], check=True)
        install: list[str | Path] = ["pip", "sync", "-q", "--python", python, "--require-hashes", _LOCK]
        subprocess.run([*base, *install], check=True)
        marker.write_text(wanted)
    return python


def ask_inspect(script: Path, question: object, timeout: float = 120) -> Any:
    """Runs a script there with `question` as JSON on its standard input; what it prints last is JSON, too."""
    done = subprocess.run(
        [inspect_python(), script],
        input=json.dumps(question),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "INSPECT_LOG_LEVEL": "error"},
    )
    if done.returncode:
        raise RuntimeError(f"{script.name} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])
