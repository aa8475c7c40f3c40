"""`pinnace tools …`. Each part is imported only when it is called; a part that is not installed says so by name."""

from __future__ import annotations

import importlib

import typer

# name → (module:function, help). The function's signature is the command line.
PARTS = {
    "gateway": (
        "pinnace.tools.gateway.command:gateway",
        "The URL that agents call: MCP and REST over all tool servers.",
    ),
    "serve": ("pinnace.tools.serve.command:serve", "A tool server of the catalogue, or any stdio server, over HTTP."),
    "sandbox": ("pinnace.tools.sandbox.command:sandbox", "The trusted agent of a session's pod."),
    "executor": (
        "pinnace.tools.executor.command:executor",
        "Runs a session's untrusted code; has a container of its own.",
    ),
}
_PASSED_ON = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}

app = typer.Typer(no_args_is_help=True, help="Tool servers, the gateway before them, and session sandboxes.")


def _register(name: str, target: str, text: str) -> None:
    @app.command(name, help=text, context_settings=_PASSED_ON)
    def _run(context: typer.Context) -> None:
        module, _, function = target.partition(":")
        part = typer.Typer(pretty_exceptions_enable=False)
        part.command(name, help=text)(getattr(importlib.import_module(module), function))
        part(context.args, prog_name=f"pinnace tools {name}")


for _name, (_target, _text) in PARTS.items():
    _register(_name, _target, _text)
