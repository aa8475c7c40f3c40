"""`pinnace tools sandbox`: the trusted agent of a session's pod."""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer()


@app.command()
def sandbox(
    key: Annotated[Path, typer.Option(help="File with the gateway's key")] = Path("/var/run/secrets/pinnace-tools/key"),
    socket: Annotated[Path, typer.Option(help="Where the executor connects")] = Path("/run/sandbox/executor.sock"),
    host: Annotated[str, typer.Option(help="Address to listen on")] = "0.0.0.0",  # noqa: S104 - a pod's address is not known
    port: Annotated[int, typer.Option(help="Port to listen on")] = 8081,
    servers: Annotated[
        str, typer.Option(help="Which of python, shell, files and the catalogue to serve")
    ] = "python,shell,files",
    recycle: Annotated[
        str, typer.Option(help="What becomes of the pod after a lease: Restart, Delete, Noop")
    ] = "Restart",
    workspace_mib: Annotated[int, typer.Option(help="Size of the workspace; bounds unpacking and snapshots")] = 256,
    executor_uid: Annotated[
        int | None, typer.Option(help="The only uid that may be the executor (a pod: 65533)")
    ] = None,
) -> None:
    """The trusted agent of a session's pod."""
    # It opens no TLS connection, and aiohttp's import would read all certificates: a quarter of its start.
    os.environ.setdefault("SSL_CERT_FILE", os.devnull)
    from aiohttp import web

    from pinnace.tools.catalogue import CatalogueError
    from pinnace.tools.catalogue.readiness import INTERNET
    from pinnace.tools.sandbox.app import Key, build
    from pinnace.tools.sandbox.hosted import Hosted
    from pinnace.tools.sandbox.lease import Recycle, Slot
    from pinnace.tools.sandbox.link import Link
    from pinnace.tools.sandbox.pod import Pod
    from pinnace.tools.sandbox.toolset import GROUPS

    names = frozenset(servers.split(","))
    groups = names & set(GROUPS)
    try:
        hosted = Hosted.of(sorted(names - groups), internet=os.environ.get(INTERNET) == "allowed")
    except CatalogueError as error:
        raise typer.BadParameter(f"--servers: besides {', '.join(GROUPS)}: {error}") from None
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")

    slot = Slot()
    link = Link(socket, uid=executor_uid, on_change=lambda connected: pod.executor_changed(connected))  # noqa: PLW0108 - made below
    pod = Pod(link, slot, recycle=Recycle(recycle), hosted=hosted)
    application = build(pod, Key(key), groups=groups, workspace_bytes=workspace_mib * 2**20)
    asyncio.set_event_loop(loop := asyncio.new_event_loop())
    web.run_app(
        application,
        host=host,
        port=port,
        loop=loop,
        print=None,
        handler_cancellation=True,
        access_log=None,
        shutdown_timeout=10,
    )


if __name__ == "__main__":
    app()
