"""`pinnace merge CONFIG`: merges local folders or folders in S3. `pinnace merge run`: what a MergeJob's pod runs."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer
import yaml
from pydantic import ValidationError
from rich.console import Console
from rich.table import Table
from typer.core import TyperGroup

from pinnace.storage.errors import StorageError

from .errors import Interrupted, MergeError
from .parameters import shown
from .plan import Plan

_out = Console()
_err = Console(stderr=True)
_SHOWN = 12


class _ConfigFirst(TyperGroup):
    """`pinnace merge FILE …` means `pinnace merge local FILE …`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and not args[0].startswith("-") and args[0] not in self.commands:
            args = ["local", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(no_args_is_help=True, cls=_ConfigFirst, help="Merge models in parameter space, by a configuration.")


@app.command(hidden=True)
def local(
    config: Annotated[Path, typer.Argument(help="mergekit's YAML, or the spec of a MergeJob")],
    output: Annotated[
        str | None, typer.Option("--output", "-o", help="an empty local folder, or s3://bucket/path")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="print the plan and write nothing")] = False,
    replace: Annotated[bool, typer.Option(help="replace an artifact that is there")] = False,
    threads: Annotated[int | None, typer.Option(help="that compute; default: all processors")] = None,
    memory: Annotated[str | None, typer.Option(help="limit of the whole process, such as 2Gi")] = None,
) -> None:
    """Merge by a configuration. Run it again to go on after an interruption."""
    if output is None and not dry_run:
        raise typer.BadParameter("say where to write: --output FOLDER, or --dry-run for the plan only")
    stop = threading.Event()

    def ask_to_stop(_signal: int, _frame: FrameType | None) -> None:
        stop.set()

    signal.signal(signal.SIGTERM, ask_to_stop)
    signal.signal(signal.SIGINT, ask_to_stop)
    try:
        _merge(config, output, stop, replace=replace, threads=threads, memory=memory, dry_run=dry_run)
    except Interrupted as error:
        _fail(error, 85)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors(include_url=False)
        )
        _fail(ValueError(problems), 64)
    except yaml.YAMLError as error:
        _fail(ValueError(f"{config} is no YAML: {error}"), 1)
    except (MergeError, StorageError, OSError) as error:
        _fail(error, 1)


def _merge(
    config: Path,
    output: str | None,
    stop: threading.Event,
    *,
    replace: bool,
    threads: int | None,
    memory: str | None,
    dry_run: bool,
) -> None:
    from pinnace_operator.api.fields import quantity_value

    from .run import RunOptions, run
    from .shards import Progress
    from .sources import Places, plan_document

    wanted: dict[str, Any] = {"replace": replace}
    if threads:
        wanted["threads"] = threads
    if memory:
        try:
            wanted["memory"] = int(quantity_value(memory))
        except ValueError as error:
            raise typer.BadParameter(f"--memory: {error}: write it as 2Gi") from None
    places = Places()
    document = yaml.safe_load(config.read_text())
    if not isinstance(document, dict):
        raise MergeError(f"{config} holds no mapping: write mergekit's YAML, or the spec of a MergeJob")
    plan, notes = plan_document(document, places)
    show(plan, notes)
    if dry_run or output is None:
        return
    store, to = places.locate(output)
    with _out.status("") as status:

        def progress(now: Progress) -> None:
            rate = now.bytes / max(now.seconds, 1e-9) / 2**20
            status.update(f"{now.bytes >> 20} of {now.total >> 20} MiB, {rate:.0f} MiB/s")

        published = run(plan, store, to, options=RunOptions(**wanted), progress=progress, stop=stop)
    _out.print(f"{published.uri} {published.digest}", highlight=False, soft_wrap=True)


@app.command("run")
def run_job() -> None:
    """Merge as a MergeJob's pod does, from PINNACE_JOB."""
    import logging
    import sys

    from pinnace_operator.api.conditions import Reason

    from pinnace.outcome import run_stage

    from .job import merge_job, termination_log

    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s", stream=sys.stdout)
    sys.exit(run_stage(merge_job, crashed=Reason.WORKER_FAILED, termination_log=termination_log()))


def show(plan: Plan, notes: tuple[str, ...] = ()) -> None:
    """Prints a plan: what is read, written, and by which values."""
    _out.print(f"plan {plan.hash}", highlight=False)
    _out.print(
        f"{plan.spec.method.name}: {len(plan.tensors)} tensors, "
        f"{sum(one.output.size for one in plan.tensors):,} numbers; "
        f"{plan.input_bytes / 2**20:,.1f} MiB to read, {plan.output_bytes / 2**20:,.1f} MiB to write "
        f"in {len(plan.shards)} files, {sum(len(shard.parts) for shard in plan.shards)} parts",
        highlight=False,
        soft_wrap=True,
    )
    for source in plan.sources:
        adapter = f" + {source.adapter.uri}" if source.adapter else ""
        _out.print(f"  {source.ref}: {source.folder.uri}{adapter}", highlight=False, soft_wrap=True)
    table = Table("tensor", "shape", "dtype", "values", box=None)
    for tensor in plan.tensors[:_SHOWN]:
        values = ", ".join(f"{key} {value}" for key, value in shown(tensor.task).items()) if tensor.task else "copied"
        table.add_row(tensor.output.name, str(list(tensor.output.shape)), tensor.output.dtype, values)
    _out.print(table)
    if len(plan.tensors) > _SHOWN:
        _out.print(f"… and {len(plan.tensors) - _SHOWN} more", highlight=False)
    for note in (*plan.notes, *notes):
        _out.print(f"note: {note}", highlight=False, soft_wrap=True)


def _fail(error: Exception, code: int) -> None:
    _err.print(f"{type(error).__name__}: {error}", markup=False, highlight=False, style="red", soft_wrap=True)
    raise typer.Exit(code)
