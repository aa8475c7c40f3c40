"""`pinnace cluster …`: the Kubernetes that demo, scenarios and developers use."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from e2e.cluster import providers
from e2e.cluster.errors import ClusterError

app = typer.Typer(
    no_args_is_help=True, help="A real Kubernetes on this machine, in kind, or the one of your kubeconfig."
)
console = Console(stderr=True)
Provider = Annotated[str, typer.Option(help=f"One of {', '.join(providers.NAMES)}.")]


@contextmanager
def _readable_errors() -> Iterator[None]:
    try:
        yield
    except ClusterError as error:
        console.print("[red]error:[/red]", escape(str(error)), highlight=False, soft_wrap=True)
        raise typer.Exit(1) from error


@app.command()
def up(
    provider: Provider = "embedded", bare: Annotated[bool, typer.Option(help="Without JobSet and S3.")] = False
) -> None:
    """Bring the cluster up, or repair it; harmless when it is up."""
    with _readable_errors():
        cluster = providers.cluster(provider, console).up(bare=bare)
        console.print(f"[green]ready[/green]  export KUBECONFIG={cluster.kubeconfig}", highlight=False, soft_wrap=True)


@app.command()
def down(
    provider: Provider = "embedded",
    purge: Annotated[bool, typer.Option(help="Delete its state (etcd, S3) too.")] = False,
) -> None:
    """Take it down and leave no trace on the machine; state and images stay for the next `up`."""
    with _readable_errors():
        providers.cluster(provider, console).down(purge=purge)


@app.command()
def status(provider: Provider = "embedded") -> None:
    """Health, pid, restarts and memory of each component; where API server and S3 are."""
    with _readable_errors():
        ok = providers.cluster(provider, console).report(Console())
    raise typer.Exit(0 if ok else 1)


@app.command()
def kubeconfig(provider: Provider = "embedded") -> None:
    """Where the kubeconfig is: `export KUBECONFIG="$(pinnace cluster kubeconfig)"`."""
    with _readable_errors():
        typer.echo(providers.cluster(provider, console).kubeconfig)


@app.command("load-image")
def load_image(archive: Path, provider: Provider = "embedded") -> None:
    """Make the images of a docker-archive or OCI tar usable by pods."""
    with _readable_errors():
        for name in providers.cluster(provider, console).load_image(archive):
            typer.echo(name)


@app.command()
def logs(component: str, provider: Provider = "embedded") -> None:
    """The log of a component, e.g. `apiserver`, `kubelet`, `supervisor`."""
    with _readable_errors():
        typer.echo(providers.cluster(provider, console).logs(component))
