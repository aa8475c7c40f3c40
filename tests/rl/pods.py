"""Containers of an RLRun as processes here: the operator's commands and environment, with addresses of here."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from pinnace.storage import Storage
from pinnace.storage.settings import S3Settings
from pinnace_operator.api.outcome import Outcome
from pinnace_operator.builders import rl
from pinnace_operator.reconcile import registry
from pinnace_operator.reconcile.plan import Observed, OperatorSettings

from e2e.apiserver import free_port
from e2e.s3 import ACCESS_KEY, SECRET_KEY, S3Server
from e2e.simulation.objects import NOW
from e2e.simulation.rlrun import rlrun
from e2e.stored import raw_client

ROOT = Path(__file__).parents[2]
RUN_PATH = "team/rlrun/job/0a1b2c3d"
TINY: dict[str, Any] = {
    "tasks": {"builtin": {"name": "arithmetic-tools", "samples": 7}}, "steps": 2, "contextTokens": 256, "turnTokens": 8,
    "agent": {"loop": {"turns": 2}, "attemptSeconds": 60}, "reward": {"function": "tests.rl.players:coin"},
    "schedule": {"groupsPerStep": 2, "groupSize": 2, "concurrency": 8}, "optimizer": {"learningRate": "1e-3"},
    "checkpoint": {"everySteps": 1}, "rollout": {"reference": {}},
    "trainer": {"device": "cpu", "engine": "Torch", "precision": "fp32", "gradientCheckpointing": False},
}  # fmt: skip


def stored(s3: S3Server, model: Path) -> tuple[Storage, str]:
    """A bucket of its own, and the address of the model in it."""
    bucket = f"test-{secrets.token_hex(6)}"
    raw_client(s3.endpoint).create_bucket(Bucket=bucket)
    storage = Storage(S3Settings(bucket=bucket, endpoint=s3.endpoint, access_key=ACCESS_KEY, secret_key=SECRET_KEY))
    return storage, storage.publish(model, storage.settings.root / "models/tiny").uri


class Pods:
    """One run. `end` it."""

    def __init__(
        self, folder: Path, s3: S3Server, storage: Storage, model: str, *, server: Path | None = None, **change: Any
    ) -> None:
        """`server`: the interpreter that has what the rollout server's image has; else this one."""
        self.folder, self.storage, self._server = folder, storage, server
        run = rlrun(**{**TINY, "model": {"uri": model}, **change})
        plan = registry.reconcile(run, Observed(now=NOW, settings=OperatorSettings()))
        jobs = plan.children[-1]["spec"]["replicatedJobs"]
        self.pods = {each["name"]: each["template"]["spec"]["template"]["spec"] for each in jobs}
        ports = {port: free_port() for port in (8700, 8701, 8710, 8720, 9090)}
        self._ports = {str(port): str(free) for port, free in ports.items()}
        self.server = f"http://127.0.0.1:{ports[8710]}"
        self._known = {
            "PINNACE_S3_ENDPOINT": s3.endpoint, "PINNACE_S3_BUCKET": storage.settings.bucket, "PINNACE_S3_PREFIX": "",
            "AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY, "PINNACE_RL_KEY": "secret",
            "PINNACE_RL_COORDINATOR": f"http://127.0.0.1:{ports[8700]}", "PINNACE_RL_PROXY": f"http://127.0.0.1:{ports[8701]}",
            "PINNACE_RL_SERVERS": self.server, "PINNACE_RL_MIRRORS": f"http://127.0.0.1:{ports[8720]}",
            "PINNACE_POD": "here", "PINNACE_ATTEMPT": "0",
        }  # fmt: skip
        self.started: dict[str, subprocess.Popen[bytes]] = {}

    def environment(self, role: str, container: str) -> dict[str, str]:
        """What the operator gives to that container; whatever it does not give is not there."""
        env = {each["name"]: each.get("value", "") for each in self.container(role, container)["env"]}
        given = {name: self._known.get(name, value) for name, value in env.items() if name != "AWS_REGION"}
        log = {"PINNACE_TERMINATION_LOG": str(self.folder / f"{role}-{container}.json"), "OMP_NUM_THREADS": "1"}
        return {**given, **log, "PINNACE_SCRATCH": str(self.folder / role)}

    def container(self, role: str, name: str) -> Mapping[str, Any]:
        spec = self.pods[role]
        return next(each for each in [*spec["initContainers"], *spec["containers"]] if each["name"] == name)

    def command(self, role: str, container: str) -> list[str]:
        python = str(self._server if self._server and role == rl.ROLLOUT else sys.executable)
        asked = map(str, self.container(role, container)["command"])
        words = [self._ports.get(word, word.replace("/scratch", str(self.folder / role))) for word in asked]
        for port, free in self._ports.items():
            words = [word.replace(f"0.0.0.0:{port}", f"127.0.0.1:{free}") for word in words]
        if "pinnace" in words:
            at = words.index("pinnace")
            return [*words[:at], python, "-m", *words[at:]]
        words[words.index("python3")] = python
        return [*words, "--host", "127.0.0.1"]  # a rollout server: on loopback only

    def start(self, role: str, container: str) -> subprocess.Popen[bytes]:
        """With nothing of this process's environment but where programs and caches are."""
        inherited = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        paths = os.pathsep.join(map(str, (ROOT / "workloads", ROOT / "operator", ROOT)))
        with (self.folder / f"{role}-{container}.log").open("ab") as log:
            made = subprocess.Popen(
                self.command(role, container),
                env={**inherited, "PYTHONPATH": paths, **self.environment(role, container)},
                stdout=log, stderr=log, cwd=self.folder, start_new_session=True,
            )  # fmt: skip
        self.started[f"{role}-{container}"] = made
        return made

    def prepare(self) -> None:
        """The first container of every pod, all at once."""
        for preparing in [self.start(role, rl.PREPARE) for role in self.pods]:
            assert preparing.wait(300) == 0, self.log()

    def start_all(self) -> None:
        """All others."""
        for role in self.pods:
            if role == rl.ROLLOUT:
                self.start(role, rl.MIRROR)
            self.start(role, role)

    def ended(self, role: str, seconds: float) -> int:
        """The exit code of a role's main container."""
        try:
            return self.started[f"{role}-{role}"].wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{role} has not ended in {seconds:g} s:\n{self.log()}") from None

    def said(self, role: str) -> Outcome | None:
        path = self.folder / f"{role}-{role}.json"
        return Outcome.parse(path.read_text()) if path.exists() else None

    def log(self) -> str:
        return "\n".join(f"== {path.name}\n{path.read_text()[-3000:]}" for path in sorted(self.folder.glob("*.log")))

    def end(self) -> None:
        """As Kubernetes does it: SIGTERM to all at once, SIGKILL to what is left with all its children."""
        for process in self.started.values():
            process.terminate()
        deadline = time.monotonic() + 20
        for process in self.started.values():
            with suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, deadline - time.monotonic()))
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
