"""Real rollout servers on the CPU, SGLang and vLLM: installed once into the cache from the images' own locks.

    with rollout_server("vllm", model_folder) as server:
        server.url

`python -m e2e.oracles.rollout` installs both.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from e2e.apiserver import free_port
from e2e.locks import REPOSITORY
from e2e.oracles.environment import python_of

Kind = Literal["sglang", "vllm"]
KINDS: tuple[Kind, ...] = get_args(Kind)
_STUBS = REPOSITORY / "images/torch_cpu_stubs.py"
_SHIM = REPOSITORY / "images/rollout-sglang/shim"
# One OpenMP thread: two that share two cores spin against each other.
_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
_VLLM_ENVIRONMENT = {
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "VLLM_SERVER_DEV_MODE": "1",
    "VLLM_CPU_CI_ENV": "1",  # no warm-up
}


def install(kind: Kind) -> Path:
    """The interpreter that has the server, made the first time as the image of that name is."""

    def finish(environment: Path) -> None:
        subprocess.run([environment / "bin/python", _STUBS], check=True, stdout=subprocess.DEVNULL)
        (_finish_sglang if kind == "sglang" else _finish_vllm)(next(environment.glob("lib/python*/site-packages")))

    also = [_STUBS, *sorted(path for path in _SHIM.rglob("*") if path.is_file())]
    return python_of(f"rollout-{kind}", ["torch-2.13-cpu", f"rollout-{kind}-cpu"], also=also, finish=finish)


def _finish_sglang(site: Path) -> None:
    shutil.copytree(_SHIM, site, dirs_exist_ok=True)


def _finish_vllm(site: Path) -> None:
    """The distribution is called vllm-cpu, yet vLLM asks for the version of `vllm`, and looks for "cpu" in it."""
    own = next(site.glob("vllm_cpu-*.dist-info"))
    version = own.name.removeprefix("vllm_cpu-").removesuffix(".dist-info")
    lines = (own / "METADATA").read_text().splitlines(keepends=True)
    named = {"Name: ": "Name: vllm\n", "Version: ": f"Version: {version}+cpu\n"}
    alias = site / f"vllm-{version}+cpu.dist-info"
    alias.mkdir()
    (alias / "METADATA").write_text(
        "".join(next((new for start, new in named.items() if line.startswith(start)), line) for line in lines)
    )


@dataclass
class RolloutServer:
    """One server process and its children; `options` are more arguments, which come last."""

    kind: Kind
    model: Path
    log: Path
    options: tuple[str, ...] = ()
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self, timeout: float = 600) -> None:
        """Starts it and waits until it answers: half a minute, minutes on a busy machine."""
        command, environment = (self._sglang if self.kind == "sglang" else self._vllm)()
        command += ["--served-model-name", "tiny", "--host", "127.0.0.1", "--port", str(self.port), *self.options]
        # The first start compiles two thousand modules: let it keep what it compiled, whatever this shell is set to.
        inherited = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command, env={**inherited, **_ENVIRONMENT, **environment},
                stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True, cwd=self.log.parent,
            )  # fmt: skip
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                urllib.request.urlopen(f"{self.url}/health", timeout=30).close()
                return
            except OSError:  # not listening, or 503
                time.sleep(0.5)
        self.kill()
        raise RuntimeError(f"{self.kind} did not start:\n" + self.log.read_text(errors="replace")[-5000:])

    def stop(self) -> None:
        """Ends it as Kubernetes does."""
        if self.process:
            self.process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(30)
            self.kill()

    def kill(self) -> None:
        """Ends it and its children at once."""
        if self.process:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None

    def _sglang(self) -> tuple[list[str], dict[str, str]]:
        command = [str(install("sglang")), "-m", "sglang.launch_server", "--model-path", str(self.model)]
        command += ["--device", "cpu", "--attention-backend", "torch_native", "--dtype", "float32", "--sleep-on-idle"]
        command += ["--enable-metrics"]
        # Else the key-value cache is sized from the machine's memory.
        return [*command, "--max-total-tokens", "65536", "--mem-fraction-static", "0.05"], {}

    def _vllm(self) -> tuple[list[str], dict[str, str]]:
        command = [str(install("vllm")), "-m", "vllm.entrypoints.cli.main", "serve", str(self.model)]
        command += ["--dtype", "float32", "--enforce-eager", "--kv-cache-memory-bytes", "100000000"]
        command += ["--enable-scale-out", "--logprobs-mode", "processed_logprobs"]
        command += ["--worker-extension-cls", "pinnace.rl.server.vllm_worker.Repacking"]
        return command, {**_VLLM_ENVIRONMENT, "PYTHONPATH": str(REPOSITORY / "workloads")}


@contextmanager
def rollout_server(kind: Kind, model: Path, *options: str) -> Iterator[RolloutServer]:
    """A running server, ended at the end."""
    with tempfile.TemporaryDirectory(prefix="pinnace-rollout-") as folder:
        server = RolloutServer(kind, model, Path(folder) / "server.log", options)
        server.start()
        try:
            yield server
        finally:
            server.stop()


if __name__ == "__main__":
    for each in KINDS:
        print(f"{each}: {install(each)}")
