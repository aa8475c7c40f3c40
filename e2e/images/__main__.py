"""`python -m e2e.images build|list|report|load|archive`: the images of this checkout."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from e2e.images import build as building
from e2e.images.engine import BASE, PACKAGES, ROOT, STORAGE, Buildah, docker_runs
from e2e.images.errors import ImageError
from e2e.images.load import Containerd
from e2e.images.load import load as load_image
from e2e.images.recipe import RECIPES, select
from e2e.images.report import folder_bytes, set_size, table
from e2e.images.store import Store

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__, pretty_exceptions_enable=False)
# Log files have no width of their own: 80 columns would cut the table.
console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
Names = Annotated[list[str] | None, typer.Argument(help=f"Which images: {', '.join(RECIPES)}. All by default.")]
Device = Annotated[str, typer.Option(help="cpu or cuda")]


@app.command()
def build(names: Names = None, device: Device = "cpu", engine: str = "buildah") -> None:
    """Build what is out of date and say how large and how long."""
    if engine not in {"buildah", "docker"} or device not in {"cpu", "cuda"}:
        raise ImageError("--engine is buildah or docker, --device is cpu or cuda")
    if engine == "docker" and not docker_runs():
        raise ImageError("no Docker engine answers: start it, or leave --engine docker away")
    started = time.monotonic()
    chosen = select(names or [])
    done = building.build(chosen, device, building.choose(engine), lambda text: console.print(text, style="dim"))
    times = {each.order.reference: f"{each.seconds:.0f} s" if each.rebuilt else "up to date" for each in done}
    if engine == "docker":
        for reference, took in times.items():
            console.print(f"{reference}: {took}")
    else:
        _show([each.order.reference for each in done], times)
    console.print(f"{sum(each.rebuilt for each in done)} built, all in {time.monotonic() - started:.1f} s")


@app.command("list")
def list_images(device: Device = "cpu") -> None:
    """Names of the images and whether they are built."""
    store = Store(STORAGE)
    for recipe in RECIPES.values():
        there = store.find(recipe.reference(device))
        console.print(f"{recipe.reference(device):<50} {'built' if there else 'not built'}")


@app.command()
def report(device: Device = "cpu") -> None:
    """Sizes of what is built, and the disk that the cache takes."""
    store = Store(STORAGE)
    _show([r.reference(device) for r in RECIPES.values() if store.find(r.reference(device))], {})
    for what, folder in (("layers", STORAGE), ("packages (shared with .venv)", PACKAGES)):
        if folder.exists():
            console.print(f"{what}: {folder_bytes(folder) / 1e9:.2f} GB in {folder}")


@app.command()
def load(
    socket: Annotated[Path, typer.Option(help="containerd's socket")],
    names: Names = None,
    device: Device = "cpu",
    namespace: str = "k8s.io",
    ctr: Annotated[Path, typer.Option(help="the ctr to use")] = ROOT.parent / "bin/ctr",
) -> None:
    """Hand images to a containerd, moving only the layers that it lacks."""
    containerd = Containerd(socket, namespace, ctr)
    for recipe in select(names or []):
        console.print(str(load_image(recipe.reference(device), containerd)))


@app.command()
def archive(name: str, target: Path, device: Device = "cpu") -> None:
    """Write one image as a docker-archive, for `kind load image-archive` or `docker load`."""
    (recipe,) = select([name])
    Buildah().archive(recipe.reference(device), target)
    console.print(f"{recipe.reference(device)}: {target.stat().st_size / 1e6:,.0f} MB in {target}")


def _show(references: list[str], times: dict[str, str]) -> None:
    store = Store(STORAGE)
    images = [store.image(reference) for reference in references]
    console.print(table(images, times))
    size, base = set_size(images), store.find(BASE)
    console.print(
        f"together {size.distinct / 1e9:.2f} GB; {size.shared / 1e9:.2f} GB are shared"
        + (f", {base.size / 1e6:,.0f} MB of it the base" if base else "")
    )


if __name__ == "__main__":
    try:
        app()
    except ImageError as error:
        console.print(f"[red]error:[/red] {error}", markup=True)
        raise SystemExit(1) from None
