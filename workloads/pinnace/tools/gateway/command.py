"""`pinnace tools gateway`."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import typer

from pinnace.tools.gateway.auth import TOKENS


def gateway(  # noqa: PLR0913, PLR0917 - the command line
    config: Annotated[Path | None, typer.Option(help="gateway.json; changes take effect at once.")] = None,
    configmap: Annotated[str, typer.Option(help="In a cluster: the ConfigMap that has gateway.json.")] = "",
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "0.0.0.0",  # noqa: S104 - a service
    port: Annotated[int, typer.Option(help="Port; 0 for any that is free.")] = 8080,
    tokens: Annotated[Path, typer.Option(help="Folder with one token file a tenant.")] = TOKENS,
    key: Annotated[Path, typer.Option(help="File with the key of the session pods.")] = Path(
        "/var/run/secrets/pinnace-tools/key"
    ),
    audit: Annotated[str, typer.Option(help="File for the audit log as JSON lines; - for standard output.")] = "",
    drain: Annotated[float, typer.Option(help="Seconds that calls in flight have after SIGTERM.")] = 30,
    port_file: Annotated[Path | None, typer.Option(help="Write the port here once it listens.")] = None,
) -> None:
    """One URL for all tools: MCP at /mcp, REST at /call and /tools, leases at /sessions."""
    import uvloop

    from pinnace.tools.gateway.app import Gateway, Options
    from pinnace.tools.gateway.errors import GatewayError

    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    options = Options(config, configmap, host, port, tokens, key, audit, drain)

    async def run() -> None:
        running = Gateway(options)
        if port_file is not None:
            running.on_listening = lambda: _write(port_file, running.port)
        await running.serve()

    try:
        uvloop.run(run())
    except GatewayError as error:
        raise typer.BadParameter(str(error)) from None


def _write(file: Path, port: int) -> None:
    partial = file.with_suffix(".partial")
    partial.write_text(str(port))
    partial.rename(file)
