"""Unpacks the browser into the cache."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from e2e.apiserver import CACHE
from e2e.gateway.node import node

_HERE = Path(__file__).parent
_UNPACK = (
    "const fs = require('fs'), zlib = require('zlib'); const [from, to] = process.argv.slice(1);"
    "fs.writeFileSync(to, zlib.brotliDecompressSync(fs.readFileSync(from)));"
)

_FONTS = """<?xml version="1.0"?><!DOCTYPE fontconfig SYSTEM "fonts.dtd">
<fontconfig><dir>{folder}/fonts</dir><dir>/usr/share/fonts</dir><cachedir>{folder}/cache</cachedir></fontconfig>
"""


def installed() -> Path:
    """The folder with the program `chromium`. Raises `RuntimeError` if `make setup` has not been run."""
    folder = _folder()
    if not (folder / "chromium").exists():
        raise RuntimeError("Chromium is missing: run `make setup`")
    return folder


def install() -> Path:
    """Installs it unless it is there: 70 MB are fetched, verified by the lock's hash; no package's script is run."""
    folder = _folder()
    if (folder / "chromium").exists():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix="chromium-", dir=folder.parent))
    for name in ("package.json", "package-lock.json"):
        shutil.copy(_HERE / name, work)
    npm = Path(node()).parents[1] / "lib/node_modules/npm/bin/npm-cli.js"
    options = ["--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error", "--cache", str(CACHE / "npm-cache")]
    subprocess.run([node(), npm, "ci", *options], cwd=work, check=True)
    made = work / "chromium"
    made.mkdir()
    for packed in (work / "node_modules/@sparticuz/chromium/bin").glob("*.br"):
        target = made / packed.stem
        subprocess.run([node(), "-e", _UNPACK, packed, target], check=True)
        if target.suffix == ".tar":
            with tarfile.open(target) as archive:
                archive.extractall(made, filter="data")
            target.unlink()
    (made / "chromium").chmod(0o755)
    (made / "fonts.conf").write_text(_FONTS.format(folder=folder))
    try:
        made.rename(folder)
    except OSError:
        if not (folder / "chromium").exists():  # else another process was quicker
            raise
    shutil.rmtree(work)
    return folder


def environment(folder: Path) -> dict[str, str]:
    """With its own libraries and a font, so that it needs none of the system's."""
    return {**os.environ, "LD_LIBRARY_PATH": str(folder / "lib"), "FONTCONFIG_PATH": str(folder), "HOME": "/tmp"}


def _folder() -> Path:
    return CACHE / f"chromium-{hashlib.sha256((_HERE / 'package-lock.json').read_bytes()).hexdigest()[:16]}"
