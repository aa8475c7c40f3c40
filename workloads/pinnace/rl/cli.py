"""`pinnace rl …`: what runs in an RLRun's pods, and what helps to write one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from .plan import ModelShape, candidates, first_that_fits

app = typer.Typer(no_args_is_help=True, help="Reinforcement learning.")


@app.callback()
def _rl() -> None:
    """Keeps `plan` a sub-command while it is the only one."""


@app.command()
def plan(
    model: Annotated[Path, typer.Argument(help="A model folder, or its config.json")],
    tokens: Annotated[int, typer.Option(help="Tokens of the longest sample (a micro-batch)")] = 131_072,
    devices: Annotated[list[int] | None, typer.Option(help="Numbers of devices to plan for; repeatable")] = None,
    gigabytes: Annotated[float, typer.Option(help="Memory of one device, in 10^9 bytes")] = 80,
) -> None:
    """Says which settings fit a model and context into the devices' memory, and what takes it."""
    config = model / "config.json" if model.is_dir() else model
    shape = ModelShape.of(json.loads(config.read_text()))
    console = Console()
    console.print(f"{shape.parameters / 1e9:.2f}B parameters, {tokens} tokens, {gigabytes:g} GB a device, bf16")
    for count in devices or [1, 2, 8]:
        table = Table(title=f"{count} device{'s' * (count > 1)}")
        made = list(candidates(shape, tokens=tokens, devices=count))
        for column in ("ZeRO", "sequence parallel", "offload", *made[0].parts, "total GB", "host GB", "fits"):
            table.add_column(column, justify="right")
        for one in made:
            sizes = [f"{part / 1e9:.1f}" for part in (*one.parts.values(), one.total, one.host)]
            setting, fits = one.setting, one.total <= gigabytes * 1e9
            offload = "optimizer" if setting.offload_optimizer else "no"
            table.add_row(
                str(setting.zero_stage), str(setting.sequence_parallel), offload, *sizes, "yes" if fits else "no"
            )
        console.print(table)
        best = first_that_fits(shape, tokens=tokens, devices=count, device_bytes=gigabytes * 1e9)
        if best is None:
            console.print(f"Nothing fits {count}: use more devices or a shorter context.")
        else:
            console.print(
                f"Take ZeRO {best.setting.zero_stage}, sequence parallel {best.setting.sequence_parallel}, optimizer "
                f"{'offloaded' if best.setting.offload_optimizer else 'on the device'}: {best.total / 1e9:.1f} GB."
            )
