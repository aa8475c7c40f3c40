"""`pinnace-operator run`: the operator's process."""

from __future__ import annotations

import asyncio
import sys

import typer

from pinnace_operator.runtime import app as operator
from pinnace_operator.runtime import logs, settings
from pinnace_operator.runtime.credentials import NoCredentials

cli = typer.Typer(add_completion=False, help="The Pinnace operator.")


@cli.callback()
def root() -> None:
    """The Pinnace operator."""


@cli.command()
def run() -> None:
    """Run the operator; its settings are PINNACE_OPERATOR_* variables (see docs/operator.md)."""
    try:
        loaded = settings.load()
        logs.configure(loaded.log_format, loaded.log_level)
        asyncio.run(operator.run(loaded))
    except (settings.InvalidSettings, NoCredentials) as error:
        sys.exit(str(error))


def main() -> None:
    cli()


if __name__ == "__main__":
    main()
