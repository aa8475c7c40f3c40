"""`pinnace tools …`. Each part is imported only when it is called; a part that is not installed says so by name."""

from __future__ import annotations

import importlib
from typing import Any

import typer
import typer.core

# name → (module:name, help). The name is a function, whose signature is the command line, or a Typer app.
PARTS = {
    "gateway": (
        "pinnace.tools.gateway.command:gateway",
        "The URL that agents call: MCP and REST over all tool servers.",
    ),
    "serve": ("pinnace.tools.serve.cli:app", "A tool server of the catalogue, or any stdio server, over HTTP."),
    "world": ("pinnace.tools.world.cli:app", "The offline world: serve it, ask questions about it."),
    "sandbox": ("pinnace.tools.sandbox.cli:app", "The trusted agent of a session's pod."),
    "executor": (
        "pinnace.tools.executor.cli:app",
        "Runs a session's untrusted code; has a container of its own.",
    ),
}


class _Untouched(typer.core.TyperCommand):
    """Passes every word on, `--` and what follows it included."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parses nothing."""
        ctx.args = list(args)
        return list(args)


app = typer.Typer(no_args_is_help=True, help="Tool servers, the gateway before them, and session sandboxes.")


def _register(name: str, target: str, text: str) -> None:
    @app.command(name, help=text, cls=_Untouched)
    def _run(context: typer.Context) -> None:
        module, _, attribute = target.partition(":")
        part = getattr(importlib.import_module(module), attribute)
        if not isinstance(part, typer.Typer):
            function, part = part, typer.Typer(pretty_exceptions_enable=False)
            part.command(name, help=text)(function)
        part(context.args, prog_name=f"pinnace tools {name}")


for _name, (_target, _text) in PARTS.items():
    _register(_name, _target, _text)
