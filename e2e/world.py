"""The offline world's server of the catalogue, as a process, for gateways of a laboratory."""

from __future__ import annotations

import secrets
import sys
from dataclasses import asdict

from pinnace.tools.world import Settings

from e2e.apiserver import free_port
from e2e.gateway.lab import Lab, Process


def serve_world(lab: Lab, settings: Settings | None = None) -> Process:
    """`pinnace tools serve world`; it ends with the laboratory."""
    port, mark = free_port(), secrets.token_hex(4)
    command = [sys.executable, "-c", "from pinnace.cli import main; main()", "tools", "serve", "world",
               "--host", "127.0.0.1", "--port", str(port)]  # fmt: skip
    env = {f"PINNACE_WORLD_{name.upper()}": str(value) for name, value in asdict(settings or Settings()).items()}
    env["PINNACE_SERVER_ENV"] = "PYTHONPATH"  # the child runs this checkout's code
    server = lab.start(Process(command, lab.folder / f"world-{mark}.port", lab.folder / f"world-{mark}.log", env))
    server.port_file.write_text(str(port))
    return server
