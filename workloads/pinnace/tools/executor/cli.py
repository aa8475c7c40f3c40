"""`pinnace tools executor`: drops root where it has it, then becomes the supervisor."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict
from typing import Annotated

import typer

app = typer.Typer()


@app.command()
def executor(
    socket: Annotated[str, typer.Option(help="The agent's socket")] = "/run/sandbox/executor.sock",
    workspace: Annotated[str, typer.Option(help="The session's folder; emptied at start")] = "/workspace",
    scratch: Annotated[str, typer.Option(help="HOME and TMPDIR of the code; emptied at start")] = "/tmp",  # noqa: S108
    servers: Annotated[str, typer.Option(help="Servers of the catalogue to run as well, by commas")] = "",
    network: Annotated[bool, typer.Option(help="Allow sockets; the pod's NetworkPolicy says where to")] = False,
    bubblewrap: Annotated[bool, typer.Option(help="Use bubblewrap where it works")] = True,
    grace: Annotated[float, typer.Option(help="Seconds between SIGINT and SIGKILL")] = 1.0,
    uid: Annotated[
        int, typer.Option(help="Used when started as root: on a developer's machine, never in a pod")
    ] = 65533,
) -> None:
    """Runs a session's untrusted code; has a container of its own."""
    from pinnace.tools.executor.settings import Settings

    settings = Settings(
        socket=socket,
        workspace=workspace,
        scratch=scratch,
        network=network,
        bubblewrap=bubblewrap,
        servers=tuple(filter(None, servers.split(","))),
        grace_seconds=grace,
    )
    if os.getpid() != 1 and (kept := [folder for folder in (workspace, scratch) if not _is_empty(folder)]):
        # A container's folders are its own. Here they may be somebody's.
        typer.echo(
            f"{' and '.join(kept)}: must be an empty folder, since the executor empties it at each reset", err=True
        )
        raise typer.Exit(64)
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    # A process of its own image: what the command line imported is of no use there, and is attack surface.
    program = [sys.executable, "-I", "-B", "-m", "pinnace.tools.executor.service", json.dumps(asdict(settings))]
    os.execv(sys.executable, program)  # noqa: S606 - to become it is the point


def _is_empty(folder: str) -> bool:
    try:
        with os.scandir(folder) as listing:
            return next(listing, None) is None
    except OSError:
        return False


if __name__ == "__main__":
    app()
