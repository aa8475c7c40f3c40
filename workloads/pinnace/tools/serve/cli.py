"""`pinnace tools serve NAME` and `pinnace tools serve -- command…`."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from pinnace.tools.catalogue import CatalogueError, Entry, Granted, State, entry
from pinnace.tools.catalogue.launch import Roots, command, environment
from pinnace.tools.serve.run import Bridge, serve_until_signalled
from pinnace.tools.serve.settings import Launch, Limits

DECLARED = (
    "PINNACE_SERVER_ENV"  # names of variables that are the server's, by commas; * is all but ours and Kubernetes' own
)
_BASE = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "TZ", "SSL_CERT_FILE")
_OURS = ("PINNACE_", "KUBERNETES_")

app = typer.Typer(pretty_exceptions_enable=False)


@app.command()
def serve(  # noqa: PLR0913 - a command line has as many options as it has
    server: Annotated[list[str], typer.Argument(help="a server of the catalogue, or -- and a command")],
    *,
    host: Annotated[str, typer.Option(help="address to listen on")] = "0.0.0.0",  # noqa: S104 - in a pod
    port: Annotated[int, typer.Option(help="port; 0 picks one")] = 8080,
    processes: Annotated[int, typer.Option(min=1, max=64, help="children kept alive; a server with state has one")] = 1,
    concurrency: Annotated[
        int, typer.Option(min=0, max=256, help="calls a child is given at a time; 0: as the catalogue says")
    ] = 0,
    queue: Annotated[int, typer.Option(min=0, help="calls that may wait; the next gets 503")] = 256,
    call_seconds: Annotated[float, typer.Option(min=0.1, help="deadline of a call whose caller says none")] = 60,
    recycle_calls: Annotated[int, typer.Option(min=0, help="replace a child after so many calls; 0: never")] = 0,
    memory_mib: Annotated[
        int, typer.Option(min=0, help="replace a child above this resident size; 0: no bound")
    ] = 1024,
    drain_delay: Annotated[float, typer.Option(min=0, help="seconds from failing /readyz to refusing calls")] = 2,
    drain_seconds: Annotated[float, typer.Option(min=0, help="seconds that calls in flight have after SIGTERM")] = 25,
    workspace: Annotated[
        Path | None, typer.Option(envvar="PINNACE_WORKSPACE", help="folder that the server may write")
    ] = None,
    env: Annotated[
        list[str] | None, typer.Option(help="NAME or NAME=VALUE that the server gets; may be repeated")
    ] = None,
) -> None:
    """Serve a stdio MCP server over HTTP, as a supervised pool of processes."""
    logging.basicConfig(
        level=os.environ.get("PINNACE_LOG_LEVEL", "INFO"), stream=sys.stderr, format="%(levelname)s %(message)s"
    )
    given, declared = declared_names(dict(os.environ), env or [])
    limits = Limits(
        processes=processes,
        concurrency=concurrency or 8,
        queue=queue,
        call_seconds=call_seconds,
        recycle_calls=recycle_calls,
        memory_bytes=memory_mib << 20,
        drain_delay=drain_delay,
        drain_seconds=drain_seconds,
    )
    with ExitStack() as stack:
        if workspace:
            workspace.mkdir(parents=True, exist_ok=True)
        try:
            if len(server) == 1 and "/" not in server[0]:
                folder = workspace or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pinnace-server-")))
                bridge = of_entry(
                    entry(server[0]), given, declared, folder, limits, host=host, port=port, concurrency=concurrency
                )
            else:
                # The folder that an image's owner chose as its working directory.
                bridge = of_command(server, given, declared, workspace or Path.cwd(), limits, host=host, port=port)
        except CatalogueError as error:
            typer.secho(f"{type(error).__name__}: {error}", err=True, fg="red")
            raise typer.Exit(1) from None
        asyncio.run(serve_until_signalled(bridge))


def declared_names(given: dict[str, str], asked: list[str]) -> tuple[dict[str, str], frozenset[str]]:
    """The environment with `NAME=VALUE` set, and the names that the server is to have."""
    declared = set(filter(None, given.get(DECLARED, "").split(",")))
    if "*" in declared:
        # In a pod everything that is set and not ours was set for the server.
        declared |= {name for name in given if not name.startswith(_OURS)}
    for each in asked:
        name, is_set, value = each.partition("=")
        declared.add(name)
        if is_set:
            given = given | {name: value}
    return given, frozenset(declared - {"*"})


def of_entry(
    found: Entry,
    given: Mapping[str, str],
    declared: frozenset[str],
    workspace: Path,
    limits: Limits,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    concurrency: int = 0,
) -> Bridge:
    """The bridge of a catalogue entry. A server with state is one process, and no count of calls ends it."""
    keeps = found.state is not State.NONE
    settled = {"processes": 1, "recycle_calls": 0} if keeps else {}
    limits = Limits(**{**vars(limits), "concurrency": concurrency or found.concurrency, **settled})
    launch = Launch(
        found.name,
        tuple(command(found, roots=Roots.from_env(given), workspace=workspace)),
        environment(found, given=given, workspace=workspace, declared=declared),
        workspace,
        found.start_seconds,
    )
    return Bridge(launch, limits, host=host, port=port, entry=found, granted=Granted.from_env(given))


def of_command(
    words: list[str],
    given: Mapping[str, str],
    declared: frozenset[str],
    workspace: Path,
    limits: Limits,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
) -> Bridge:
    """The bridge of a plain command; it gets what any program needs and what was declared for it."""
    names = {*_BASE, *declared}
    env = {name: given[name] for name in sorted(names) if name in given}
    # The child's working directory is another: a relative path is meant from here.
    program = str(Path(words[0]).absolute()) if "/" in words[0] else words[0]
    return Bridge(Launch(Path(program).name, (program, *words[1:]), env, workspace), limits, host=host, port=port)
