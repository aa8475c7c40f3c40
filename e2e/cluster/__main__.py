"""`python -m e2e.cluster` is `pinnace cluster`."""

from e2e.cluster.cli import app

app(prog_name="pinnace cluster")
