"""Pin every dependency with hashes: `python -m e2e.locks [--upgrade] [NAME …]`.

Each lock under `requirements/` is compiled by uv from a `.in` file, from extras of `pyproject.toml`, or from both. The
heavy images take what their shared torch layer already pinned as constraints, so that no later layer replaces a file of
it.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
REQUIREMENTS = REPOSITORY / "requirements"


@dataclass(frozen=True)
class Lock:
    """One lock file `requirements/<name>.txt` and what it is compiled from (file names in `requirements/`)."""

    name: str
    sources: tuple[str, ...] = ()
    extras: tuple[str, ...] = ()
    project: bool = True
    overrides: tuple[str, ...] = ()
    constraints: tuple[str, ...] = ()
    closed: bool = False
    """The sources name everything: what they require is elsewhere."""

    def command(self, uv: str) -> list[str]:
        """The uv command, to be run in `requirements/`."""
        return [
            *(uv, "--system-certs", "pip", "compile", "-q", "--python-version", "3.11", "--generate-hashes"),
            *("--no-emit-index-url", "--no-annotate", "--no-header"),
            *(word for extra in self.extras for word in ("--extra", extra)),
            *(word for file in self.overrides for word in ("--overrides", file)),
            *(word for file in self.constraints for word in ("-c", file)),
            *(("--no-deps",) if self.closed else ()),
            *self.sources,
            *(("../pyproject.toml",) if self.project else ()),
            *("-o", f"{self.name}.txt"),
        ]


def _on(torch: str, name: str, *sources: str, extras: tuple[str, ...] = (), overrides: tuple[str, ...] = ()) -> Lock:
    return Lock(name, sources, extras, overrides=overrides, constraints=(f"{torch}.txt",))


CPU = ("overrides-cpu.txt",)
# In order: a lock comes after those that constrain it.
LOCKS = (
    Lock("uv", ("uv.in",), project=False),
    Lock("dev", ("torch-cpu.in",), ("operator", "sft", "tools", "evals", "dev"), overrides=CPU),
    Lock("image-build", ("image-build.in",), project=False, constraints=("dev.txt",)),
    # The oracle of the graders' conformance tests; an environment of its own, never in an image.
    Lock("inspect", ("inspect.in",), project=False),
    Lock("operator", extras=("operator",), constraints=("dev.txt",)),
    Lock("tools", extras=("tools", "evals"), constraints=("dev.txt",)),
    Lock("catalogue-mcp1", ("catalogue-mcp1.in",), project=False),
    Lock("catalogue-mcp2", ("catalogue-mcp2.in",), project=False, overrides=("overrides-catalogue.txt",)),
    Lock("torch-2.13-cpu", ("torch-2.13-cpu.in",), project=False, overrides=CPU),
    Lock("torch-2.13-cuda", ("torch-2.13-cuda.in",), project=False),
    Lock("torch-2.14-cuda", ("torch-2.14-cuda.in",), project=False),
    _on("torch-2.13-cpu", "trainer-cpu", "torch-cpu.in", extras=("sft",), overrides=CPU),
    _on("torch-2.13-cuda", "trainer-cuda", extras=("sft",)),
    _on("torch-2.13-cpu", "rollout-vllm-cpu", "torch-cpu.in", "rollout-vllm-cpu.in", overrides=CPU),
    _on("torch-2.13-cuda", "rollout-vllm-cuda", "rollout-vllm-cuda.in"),
    _on(
        "torch-2.13-cpu",
        "rollout-sglang-cpu",
        "torch-cpu.in",
        "rollout-sglang-cpu.in",
        overrides=(*CPU, "overrides-sglang-cpu.txt"),
    ),
    _on("torch-2.14-cuda", "rollout-sglang-cuda", "rollout-sglang-cuda.in"),
    # An agent framework that RL's capture is tested with.
    Lock("oracle-agents", ("oracle-agents.in",), project=False),
    Lock("oracle-mergekit", ("oracle-mergekit.in",), project=False, closed=True),
)


def uv() -> str:
    """The uv that `make setup` installed, else the one on PATH."""
    own = Path(os.environ.get("PINNACE_CACHE", Path.home() / ".cache/pinnace")) / "uv/bin/uv"
    found = str(own) if own.exists() else shutil.which("uv")
    if not found:
        raise SystemExit("uv is missing: run `make setup`")
    return found


def main(arguments: list[str]) -> int:
    """Compile the named locks, or all; versions stay as they are unless `--upgrade` is given or an input demands it."""
    parser = argparse.ArgumentParser(prog="python -m e2e.locks", description=__doc__)
    parser.add_argument("names", nargs="*", choices=[[], *(lock.name for lock in LOCKS)], metavar="NAME")
    parser.add_argument("--upgrade", action="store_true", help="take the newest versions that fit")
    asked = parser.parse_args(arguments)
    program = uv()
    for lock in LOCKS:
        if asked.names and lock.name not in asked.names:
            continue
        print(f"== requirements/{lock.name}.txt", flush=True)
        command = [*lock.command(program), *(["--upgrade"] if asked.upgrade else [])]
        if code := subprocess.run(command, cwd=REQUIREMENTS, check=False).returncode:
            print(f"requirements/{lock.name}.txt could not be resolved: see uv's message above", file=sys.stderr)
            return code
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
