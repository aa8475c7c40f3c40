"""mergekit as an oracle: installed once into the cache, run in a process of its own.

    with mergekit() as oracle:
        oracle.merge(configuration, output)

The process stays for many merges: importing mergekit takes seconds. `python -m e2e.oracles.mergekit CONFIG OUTPUT` is a
single merge, for benchmarks.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from e2e.locks import REQUIREMENTS, uv

_LOCK = REQUIREMENTS / "oracle-mergekit.txt"
_CACHE = Path(os.environ.get("PINNACE_CACHE", Path.home() / ".cache/pinnace")) / "oracles"

# Runs inside the oracle's process. Reads {"config", "output", "masks", "options"} a line, answers {"error"} a line.
# With `masks` (an .npz with "<tensor>/<model>"), random masks are taken from there instead of torch.bernoulli.
_SERVER = """
import json, logging, sys
answers, sys.stdout = sys.stdout, sys.stderr
logging.disable(logging.WARNING)
import numpy, torch
# Which of several equal numbers comes first is left open by an unstable sort: settle it by index, as we do.
argsort, sort = torch.argsort, torch.sort
torch.argsort = lambda input, dim=-1, descending=False: argsort(input, dim=dim, descending=descending, stable=True)
torch.sort = lambda input, dim=-1, descending=False: sort(input, dim=dim, descending=descending, stable=True)
def topk(input, k, largest=True):
    values, indices = sort(input, descending=largest, stable=True)
    return values[:k], indices[:k]
torch.topk = topk
from mergekit.merge_methods.generalized_task_arithmetic import GeneralizedTaskArithmeticMerge
from mergekit.config import MergeConfiguration
from mergekit.merge import run_merge
from mergekit.options import MergeOptions
torch.set_num_threads(int(sys.argv[1]))
masks, at, bernoulli, merge_group = {}, {}, torch.bernoulli, GeneralizedTaskArithmeticMerge.merge_group
def noting_the_tensor(self, group, /, **parameters):
    at.update(name=group.metadata.name, model=-1)
    return merge_group(self, group, **parameters)
def from_the_file(chances):
    at["model"] += 1
    return torch.from_numpy(masks[f"{at['name']}/{at['model']}"]).reshape(chances.shape).to(chances.dtype)
GeneralizedTaskArithmeticMerge.merge_group = noting_the_tensor
for line in sys.stdin:
    asked = json.loads(line)
    masks = dict(numpy.load(asked["masks"])) if asked["masks"] else {}
    torch.bernoulli = from_the_file if masks else bernoulli
    try:
        run_merge(MergeConfiguration.model_validate(asked["config"]), asked["output"],
                  MergeOptions(quiet=True, write_model_card=False, **asked["options"]))
        answer = {"error": None}
    except Exception as error:
        answer = {"error": f"{type(error).__name__}: {error}"}
    print(json.dumps(answer), file=answers, flush=True)
"""


class OracleFailed(RuntimeError):
    """mergekit refused or failed."""


def install() -> Path:
    """Where mergekit and what it needs beyond our environment is, installed the first time."""
    target = (
        _CACHE
        / f"mergekit-{hashlib.sha256(_LOCK.read_bytes()).hexdigest()[:12]}-{sys.version_info[0]}.{sys.version_info[1]}"
    )
    if not target.exists():
        partial = target.with_name(f"{target.name}.{os.getpid()}.part")
        command = [
            *(uv(), "--system-certs", "pip", "install", "-q", "--python", sys.executable, "--no-deps"),
            *("--require-hashes", "-r", str(_LOCK), "--target", str(partial)),
        ]
        subprocess.run(command, check=True)
        partial.rename(target)
    return target


def environment() -> dict[str, str]:
    """Variables with which our Python finds mergekit. It must not ask the hub for anything."""
    return {**os.environ, "PYTHONPATH": str(install()), "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}


class Mergekit:
    """A running oracle."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def merge(self, config: Mapping[str, Any], output: Path, *, masks: Path | None = None, **options: Any) -> None:
        """One merge. Raises `OracleFailed` with what mergekit says.

        Args:
            config: as in mergekit's YAML.
            output: a folder.
            masks: an .npz file with random masks, as `<tensor>/<model>`, to be used instead of drawn ones.
            options: of mergekit's MergeOptions.
        """
        into, out = self._process.stdin, self._process.stdout
        assert into is not None
        assert out is not None
        _ask(into, {"config": config, "output": str(output), "masks": masks and str(masks), "options": options})
        line = out.readline()
        if not line:
            raise OracleFailed(f"mergekit's process ended with {self._process.wait()}")
        error = json.loads(line)["error"]
        if error:
            raise OracleFailed(error)


def _ask(into: IO[str], question: Mapping[str, Any]) -> None:
    into.write(json.dumps(question) + "\n")
    into.flush()


@contextmanager
def mergekit(threads: int = 2) -> Iterator[Mergekit]:
    """A running oracle, ended at the end."""
    process = subprocess.Popen(
        [sys.executable, "-c", _SERVER, str(threads)],
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        yield Mergekit(process)
    finally:
        if process.stdin:
            process.stdin.close()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
