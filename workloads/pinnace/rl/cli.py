"""`pinnace rl …`: what runs in an RLRun's pods, and what helps to write one."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from .plan import ModelShape, candidates, first_that_fits

if TYPE_CHECKING:
    from .config import RunConfig

app = typer.Typer(no_args_is_help=True, help="Reinforcement learning.")


Config = Annotated[Path, typer.Argument(help="The run's configuration, JSON or YAML")]


@app.callback()
def _rl() -> None:
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s", stream=sys.stdout)
    for name in ("httpx", "httpx2"):  # they log addresses, and those hold keys of sessions
        logging.getLogger(name).setLevel(logging.WARNING)


@app.command()
def check(config: Config) -> None:
    """Checks a configuration: fields, model, tasks, agent and reward function."""

    def work() -> None:
        from .processes import check as check_sampler
        from .trainer_process import check as check_trainer

        check_trainer(given := _read(config))
        check_sampler(given)

    _stage(work)


@app.command()
def run(config: Config) -> None:
    """Runs everything on this machine, each part a process of its own, until the last step."""
    from .local import LocalRun

    code = 1

    def work() -> None:
        nonlocal code
        code = LocalRun(config, _read(config)).run()

    _stage(work)
    sys.exit(code)


@app.command()
def prepare(role: Annotated[str, typer.Argument(help="trainer, rollout, sampler, coordinator or proxy")]) -> None:
    """In a pod of an RLRun: brings what the role needs to its disk, checks it, and writes the configuration."""

    def work() -> None:
        from .pod.prepare import prepare as prepare_pod

        prepare_pod(role)

    _stage(work)


@app.command()
def coordinator(config: Config) -> None:
    """Decides what is played and what makes a step; keeps the trajectories."""
    from .processes import coordinate

    _stage(lambda: coordinate(_read(config)))


@app.command()
def proxy(config: Config) -> None:
    """What agents take for OpenAI, and the fleet of rollout servers behind it."""
    from .processes import front

    _stage(lambda: front(_read(config)))


@app.command()
def sample(
    config: Config,
    name: Annotated[str, typer.Option(help="Unique among the samplers; default host and process")] = "",
    slots: Annotated[int, typer.Option(help="Attempts at once")] = 32,
    metrics_port: Annotated[int | None, typer.Option(help="Port of /metrics")] = None,
) -> None:
    """Plays attempts until the run is finished."""
    from .processes import sample as play

    _stage(lambda: play(_read(config), name=name, slots=slots, metrics_port=metrics_port))


@app.command()
def train(config: Config) -> None:
    """Trains; with DeepSpeed in so many processes as the configuration says."""
    from .trainer_process import launch

    given = _read_or_exit(config)
    if given.engine.kind == "deepspeed":
        sys.exit(launch(config, given))
    rank(config)


@app.command(hidden=True)
def rank(config: Config) -> None:
    """One of a trainer's processes."""
    from .trainer_process import run as train_rank

    _stage(lambda: train_rank(_read(config)))


@app.command()
def serve(
    model: Annotated[Path, typer.Argument(help="A model folder; only its config.json is read")],
    url: Annotated[str, typer.Option(help="Where to serve")] = "http://127.0.0.1:8710",
    seed: Annotated[int, typer.Option(help="Of the draws")] = 0,
) -> None:
    """The reference rollout server: transformers on a CPU. It waits for its first weights."""
    from .processes import serve as serve_at
    from .reference.decoder import Decoder
    from .reference.server import Server

    _stage(lambda: serve_at(Server(Decoder(model, seed=seed)).app(), url))


@app.command()
def mirror(
    folder: Annotated[Path, typer.Argument(help="Where the rollout server finds the weights")],
    url: Annotated[str, typer.Option(help="Where to serve")] = "http://127.0.0.1:8720",
) -> None:
    """Fetches weights from S3 to a rollout server's disk."""
    from .processes import mirror as mirror_at

    _stage(lambda: mirror_at(url, folder))


def _read(config: Path) -> RunConfig:
    from .config import RunConfig

    return RunConfig.read(config)


def _read_or_exit(config: Path) -> RunConfig:
    read: list[RunConfig] = []
    _stage(lambda: read.append(_read(config)))
    return read[0]


def _stage(work: Callable[[], object]) -> None:
    """Ends the process unless the work succeeded."""
    from pinnace_operator.api.outcome import Outcome

    from pinnace.outcome import TERMINATION_LOG, run_stage

    def main() -> Outcome | None:
        outcome = work()
        return outcome if isinstance(outcome, Outcome) else None

    log = Path(os.environ.get("PINNACE_TERMINATION_LOG", TERMINATION_LOG))
    if code := run_stage(main, termination_log=log):
        sys.exit(code)


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
