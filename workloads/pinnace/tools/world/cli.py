"""`pinnace tools world …`: the offline world from the command line."""

from __future__ import annotations

import dataclasses
import json
from typing import Annotated

import typer

from pinnace.tools.world.questions import questions
from pinnace.tools.world.site import build

app = typer.Typer(
    no_args_is_help=True, pretty_exceptions_enable=False, help="The offline world: a synthetic web from a seed."
)
Seed = Annotated[int, typer.Option(help="seed of the world")]
Pages = Annotated[int, typer.Option(min=100, help="about how many documents it has")]


@app.command()
def serve(
    *,
    seed: Seed = 0,
    pages: Pages = 3000,
    host: Annotated[str, typer.Option(help="address to listen on")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="port")] = 8090,
) -> None:
    """Serve its pages and its search over HTTP."""
    from aiohttp import web

    from pinnace.tools.world.http import application

    web.run_app(application(build(seed=seed, pages=pages)), host=host, port=port, access_log=None)


@app.command()
def ask(
    *,
    seed: Seed = 0,
    pages: Pages = 3000,
    n: Annotated[int, typer.Option(min=1, help="how many questions")] = 10,
    hops: Annotated[int, typer.Option(min=1, max=12, help="facts to put together")] = 3,
    question_seed: Annotated[int, typer.Option(help="seed of the questions")] = 0,
) -> None:
    """Print questions with answers and evidence, one JSON object a line."""
    for question in questions(build(seed=seed, pages=pages), seed=question_seed, n=n, hops=hops):
        typer.echo(json.dumps(dataclasses.asdict(question), ensure_ascii=False))


@app.command()
def digest(*, seed: Seed = 0, pages: Pages = 3000) -> None:
    """Print the digest of all its bytes."""
    typer.echo(build(seed=seed, pages=pages).digest)
