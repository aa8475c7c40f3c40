"""Servers of the catalogue, the offline world's above all, as processes for gateways of a laboratory."""

from __future__ import annotations

import secrets
import sys
from dataclasses import asdict

from pinnace.tools.world import Settings

from e2e.apiserver import free_port
from e2e.gateway.lab import Lab, Process


def serve_world(lab: Lab, settings: Settings | None = None) -> Process:
    """The offline world of these settings; Scout's own without."""
    env = {f"PINNACE_WORLD_{name.upper()}": str(value) for name, value in asdict(settings or Settings()).items()}
    return serve(lab, "world", **env)


def serve(lab: Lab, name: str, **env: str) -> Process:
    """`pinnace tools serve NAME`; it ends with the laboratory."""
    port, mark = free_port(), secrets.token_hex(4)
    command = [sys.executable, "-c", "from pinnace.cli import main; main()", "tools", "serve", name,
               "--host", "127.0.0.1", "--port", str(port)]  # fmt: skip
    env["PINNACE_SERVER_ENV"] = "PYTHONPATH"  # the child runs this checkout's code
    server = lab.start(Process(command, lab.folder / f"{name}-{mark}.port", lab.folder / f"{name}-{mark}.log", env))
    server.port_file.write_text(str(port))
    return server
