"""`pinnace tiny-model`: writes the tiny model to a folder or publishes it to S3."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer()


@app.command()
def tiny_model(
    target: Annotated[str, typer.Argument(help="s3://bucket/path, or a local folder")],
    seed: Annotated[int, typer.Option(help="Seed of the random weights")] = 0,
) -> None:
    """Makes a Qwen3 of half a million parameters with tokenizer and chat template."""
    from .model import write_tiny_model

    if not target.startswith("s3://"):
        typer.echo(f"{target}: {write_tiny_model(Path(target), seed=seed):,} parameters")
        return
    from pinnace.storage import Storage

    with tempfile.TemporaryDirectory() as folder:
        parameters = write_tiny_model(Path(folder), seed=seed)
        published = Storage.from_env().publish(Path(folder), target, kind="model")
    typer.echo(f"{published.uri}: {parameters:,} parameters, {published.digest}")
