"""`pinnace tools world …`: the offline world from the command line."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated

import typer

from pinnace.tools.world.questions import questions
from pinnace.tools.world.scout import LANGUAGES, LEVELS, MOST_HOPS
from pinnace.tools.world.scout_file import write
from pinnace.tools.world.settings import Settings

app = typer.Typer(
    no_args_is_help=True, pretty_exceptions_enable=False, help="The offline world: a synthetic web from a seed."
)
Seed = Annotated[int, typer.Option(help="seed of the world")]
Pages = Annotated[int, typer.Option(min=100, help="about how many documents state its facts")]
Islands = Annotated[int, typer.Option(min=1, help="parts without a link between them; Scout needs three")]
Noise = Annotated[int, typer.Option(min=0, help="pages about each entity that state nothing")]
Length = Annotated[int, typer.Option(min=1, help="paragraphs where one would stand")]


@app.command()
def serve(
    *,
    seed: Seed = 0,
    pages: Pages = 3000,
    islands: Islands = 3,
    noise: Noise = 0,
    length: Length = 1,
    host: Annotated[str, typer.Option(help="address to listen on")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="port")] = 8090,
) -> None:
    """Serve its pages and its search over HTTP."""
    from aiohttp import web

    from pinnace.tools.world.http import application

    web.run_app(
        application(Settings(seed, pages, islands, noise, length).build()), host=host, port=port, access_log=None
    )


@app.command()
def ask(
    *,
    seed: Seed = 0,
    pages: Pages = 3000,
    islands: Islands = 3,
    noise: Noise = 0,
    length: Length = 1,
    n: Annotated[int, typer.Option(min=1, help="how many questions")] = 10,
    hops: Annotated[int, typer.Option(min=1, max=12, help="facts to put together")] = 3,
    question_seed: Annotated[int, typer.Option(help="seed of the questions")] = 0,
) -> None:
    """Print questions with answers and evidence, one JSON object a line."""
    for question in questions(
        Settings(seed, pages, islands, noise, length).build(), seed=question_seed, n=n, hops=hops
    ):
        typer.echo(json.dumps(dataclasses.asdict(question), ensure_ascii=False))


@app.command()
def digest(*, seed: Seed = 0, pages: Pages = 3000, islands: Islands = 3, noise: Noise = 0, length: Length = 1) -> None:
    """Print the digest of all its bytes."""
    typer.echo(Settings(seed, pages, islands, noise, length).build().digest)


@app.command()
def scout(  # noqa: PLR0913 - a command line has as many options as it has
    out: Annotated[Path, typer.Argument(help="folder for the question files")],
    *,
    seed: Seed = 0,
    pages: Pages = 3000,
    islands: Islands = 3,
    noise: Noise = 0,
    length: Length = 1,
    n: Annotated[int, typer.Option(min=1, help="questions for each level and language")] = 5,
    level: Annotated[
        list[int] | None, typer.Option(min=1, max=MOST_HOPS, help="pages that must be read; may be repeated")
    ] = None,
    question_seed: Annotated[int, typer.Option(help="seed of the questions")] = 0,
) -> None:
    """Write Scout's train, validation and test questions over this world, for `pinnace eval scout --data`."""
    settings = Settings(seed, pages, islands, noise, length)
    try:
        made = write(out, settings, n=n, levels=sorted(set(level or LEVELS)), languages=LANGUAGES, seed=question_seed)
    except ValueError as error:
        typer.secho(str(error), err=True, fg="red")
        raise typer.Exit(1) from None
    for path in made:
        typer.echo(path)
    serving = {f"PINNACE_WORLD_{name.upper()}": value for name, value in dataclasses.asdict(settings).items()}
    typer.echo("server: " + " ".join(f"{name}={value}" for name, value in serving.items()))
