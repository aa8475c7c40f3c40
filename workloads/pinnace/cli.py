"""The command `pinnace`. Only the sub-command that is called gets imported: `pinnace --help` is quick."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from importlib.metadata import entry_points

import typer

PLUGINS = "pinnace.commands"
BUILTIN = {
    "rl": ("pinnace.rl.cli:app", "Reinforcement learning: run it, its processes, memory plans."),
    "sft": ("pinnace.sft.cli:app", "Supervised fine-tuning: what runs in an SFTJob's pods."),
    "eval": ("pinnace.evals.cli:app", "Evaluate an agent on benchmarks: run, grade, compare, report."),
    "merge": ("pinnace.merge.cli:app", "Merge models in parameter space, by a configuration."),
    "tools": ("pinnace.tools.cli:app", "Tool servers for agents, the gateway before them, session sandboxes."),
    "tiny-model": ("pinnace.tiny.cli:app", "Make the tiny Qwen3 of the demo and the tests"),
    "artifact": ("pinnace.storage.cli:artifact", "Publish, fetch and look at artifacts in S3."),
    "cleanup": ("pinnace.cleanup:app", "Delete a run's data in S3: what runs when deletionPolicy is Delete"),
    "checkpoint": ("pinnace.storage.cli:checkpoint", "List and verify a run's checkpoints in S3."),
}


def commands() -> dict[str, tuple[str, str]]:
    """Where each sub-command's Typer app is (`module:name`), and its help. A plug-in can't replace a built-in one."""
    plugins = {
        point.name: (point.value, f"From {point.value.partition(':')[0]}.") for point in entry_points(group=PLUGINS)
    }
    return dict(sorted({**plugins, **BUILTIN}.items()))


def build(arguments: Sequence[str]) -> typer.Typer:
    """The app for these arguments: the sub-command they name for real, the others as names with a line of help."""
    wanted = next((argument for argument in arguments if not argument.startswith("-")), None)
    app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, help="Train small agents on Kubernetes.")
    for name, (target, text) in commands().items():
        _add(app, name, _load(target) if name == wanted else _placeholder(), text)
    return app


def _add(app: typer.Typer, name: str, part: typer.Typer, text: str) -> None:
    """Add `part` as a group; one that is a single command becomes the command itself."""
    single = part.registered_commands[0].callback if len(part.registered_commands) == 1 else None
    if single and part.registered_callback is None:
        app.command(name, help=text)(single)
    else:
        app.add_typer(part, name=name, help=text)


def _load(target: str) -> typer.Typer:
    module, _, name = target.partition(":")
    app = getattr(importlib.import_module(module), name)
    if not isinstance(app, typer.Typer):
        raise TypeError(f"{target} is no typer.Typer: entry points of {PLUGINS} name Typer apps")
    return app


def _placeholder() -> typer.Typer:
    app = typer.Typer()
    app.callback(invoke_without_command=True)(lambda: None)
    return app


def main() -> None:
    """Entry point."""
    build(sys.argv[1:])()
