"""The chart, as helm renders it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from e2e.apiserver import BIN

CHART = Path(__file__).parents[2] / "charts" / "pinnace"
Object = dict[str, Any]


class RenderError(RuntimeError):
    """helm refused; the message is what it said."""


class Rendered(list[Object]):
    """The manifests."""

    def one(self, kind: str, name: str | None = None, namespace: str | None = None) -> Object:
        """The only manifest of that kind (and name, and namespace)."""
        (found,) = (
            each
            for each in self
            if each["kind"] == kind
            and name in (None, each["metadata"]["name"])
            and namespace in (None, each["metadata"].get("namespace"))
        )
        return found

    def kinds(self) -> list[str]:
        return sorted(each["kind"] for each in self)


def helm(*arguments: str) -> str:
    """Run helm. Raises RenderError."""
    done = subprocess.run([BIN / "helm", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RenderError(done.stderr)
    return done.stdout


def _render(**values: Any) -> Rendered:
    options = [f"--set-json={name}={json.dumps(value)}" for name, value in values.items()]
    text = helm("template", "pinnace", str(CHART), "--namespace", "pinnace-system", "--include-crds", *options)
    return Rendered(each for each in yaml.safe_load_all(text) if each)


@pytest.fixture(scope="session")
def render() -> Callable[..., Rendered]:
    return _render
