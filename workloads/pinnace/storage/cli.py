"""`pinnace artifact …` and `pinnace checkpoint …`."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from pinnace.storage.checkpoints import Checkpoints
from pinnace.storage.errors import StorageError
from pinnace.storage.storage import Storage
from pinnace.storage.uri import S3Uri

artifact = typer.Typer(no_args_is_help=True, help="Publish, fetch and look at artifacts in S3.")
checkpoint = typer.Typer(no_args_is_help=True, help="List and verify a run's checkpoints in S3.")

Address = Annotated[str, typer.Argument(metavar="S3-URI", help="s3://bucket/path")]
RunAddress = Annotated[
    str, typer.Argument(metavar="S3-URI", help="s3://bucket/path of a run, the folder above `checkpoints`")
]
_out = Console()
_err = Console(stderr=True)


@contextmanager
def _explained() -> Iterator[Storage]:
    """A storage from the environment; storage errors become one line and exit code 1."""
    try:
        yield Storage.from_env()
    except (StorageError, OSError) as error:
        _err.print(f"{type(error).__name__}: {error}", markup=False, highlight=False, style="red", soft_wrap=True)
        raise typer.Exit(1) from None


@artifact.command()
def pull(
    uri: Address,
    dest: Annotated[Path, typer.Argument(help="local folder")],
    digest: Annotated[str | None, typer.Option(help="refuse anything else (sha256:…)")] = None,
) -> None:
    """Download an artifact or a checkpoint, every file verified."""
    with _explained() as storage:
        published = storage.fetch(uri, dest, digest)
        _out.print(f"{published.uri} {published.digest}", highlight=False, soft_wrap=True)


@artifact.command()
def push(
    source: Annotated[Path, typer.Argument(help="local folder")],
    uri: Address,
    kind: Annotated[str, typer.Option(help="what it is")] = "model",
    base_model: Annotated[str | None, typer.Option(help="what it was made from")] = None,
    replace: Annotated[bool, typer.Option(help="replace an artifact that is there")] = False,
) -> None:
    """Upload a folder as an artifact, manifest last."""
    with _explained() as storage:
        published = storage.publish(source, uri, kind=kind, base_model=base_model, replace=replace)
        _out.print(f"{published.uri} {published.digest}", highlight=False, soft_wrap=True)


@artifact.command()
def show(uri: Address) -> None:
    """Print what an artifact is, what it was made from, and its files, as JSON."""
    with _explained() as storage:
        found = storage.show(uri)
        described = found.description.model_dump(mode="json", by_alias=True) if found.description else None
        manifest = found.manifest.model_dump(mode="json", by_alias=True)
        _out.print_json(
            json.dumps({"uri": found.uri, "digest": found.digest, "artifact": described, "manifest": manifest})
        )


@checkpoint.command("list")
def list_(uri: RunAddress) -> None:
    """List a run's checkpoints, oldest first, and what is unfinished or damaged."""
    with _explained() as storage:
        checkpoints = _checkpoints(storage, uri)
        table = Table("step", "time", "score", "files", "size", "digest", box=None)
        for found in checkpoints.all():
            manifest = found.manifest
            table.add_row(
                str(found.step),
                found.time,
                manifest.score or "",
                str(len(manifest.files)),
                f"{manifest.size / 2**20:.1f} MiB",
                found.digest,
            )
        _out.print(table)
        for skipped in checkpoints.damaged:
            _err.print(
                f"step {skipped.step}: {skipped.reason}", markup=False, highlight=False, style="yellow", soft_wrap=True
            )


@checkpoint.command()
def verify(
    uri: RunAddress, step: Annotated[int | None, typer.Option(help="this one only; default: all")] = None
) -> None:
    """Read every byte of a run's checkpoints and compare with their manifests; exit code 1 if one is damaged."""
    bad = 0
    with _explained() as storage:
        checkpoints = _checkpoints(storage, uri)
        chosen = checkpoints.all() if step is None else [checkpoints.at(step)]
        for skipped in checkpoints.damaged if step is None else []:
            bad += 1
            _out.print(
                f"step {skipped.step}: {skipped.reason}", markup=False, highlight=False, style="red", soft_wrap=True
            )
        for found in chosen:
            try:
                with tempfile.TemporaryDirectory(prefix="pinnace-verify-") as scratch:
                    found.download(Path(scratch))
                _out.print(f"step {found.step}: ok, {len(found.manifest.files)} files", highlight=False)
            except StorageError as error:
                bad += 1
                _out.print(f"step {found.step}: {error}", markup=False, highlight=False, style="red", soft_wrap=True)
    if bad:
        raise typer.Exit(1)


def _checkpoints(storage: Storage, uri: str) -> Checkpoints:
    return Checkpoints(storage.transfer, S3Uri.parse(uri) / "checkpoints")
