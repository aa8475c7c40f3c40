"""What the README and the other pages show works as it stands."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from e2e.kube import Kubectl

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
MANIFESTS = [
    pytest.param(block, id=f"{page.stem}-{number}")
    for page in PAGES
    for number, block in enumerate(
        re.findall(r"^```yaml\n(apiVersion: .*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    )
]


@pytest.mark.parametrize("manifest", MANIFESTS)
def test_a_manifest_on_a_page_is_accepted(kubectl: Kubectl, manifest: str) -> None:
    assert yaml.safe_load(manifest)["kind"] in kubectl.run(
        "create", "--dry-run=server", "-o", "yaml", "-f", "-", stdin=manifest
    )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:|#)([^)#\s]+)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_targets_of_make_exist() -> None:
    known = set(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {name for page in PAGES for name in re.findall(r"(?:^|`)make ([a-z-]+)", page.read_text(), re.MULTILINE)}
    assert named <= known
    assert known - {"help"} <= set(re.findall(r"[a-z-]+", subprocess.check_output(["make"], cwd=ROOT, text=True)))


def test_commands_of_the_cluster_exist() -> None:
    from e2e.cluster.cli import app

    named = {name for page in PAGES for name in re.findall(r"pinnace cluster ([a-z-]+)", page.read_text())}
    for name in sorted(named):
        assert CliRunner().invoke(app, [name, "--help"]).exit_code == 0, name
