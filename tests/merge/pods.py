"""A MergeJob's pod as the operator starts it, against a real S3."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pinnace.storage import RunDirectory, Storage
from pinnace.tiny.model import write_tiny_model

from e2e.s3 import ACCESS_KEY, SECRET_KEY, S3Server
from e2e.stored import raw_client

UID = "0f2a5b1c-0000"


@dataclass
class Pod:
    """One attempt."""

    process: subprocess.Popen[str]
    termination: Path
    log: Path

    def wait(self) -> int:
        return self.process.wait(900)  # several tests share two processors

    @property
    def outcome(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.termination.read_text())
        return found


class Cluster:
    """A bucket with a base and a model that was trained from it, and pods that merge them."""

    def __init__(self, server: S3Server, folder: Path) -> None:
        self.folder = folder
        self.env = {
            "PINNACE_S3_ENDPOINT": server.endpoint, "PINNACE_S3_BUCKET": "merge-jobs", "PINNACE_S3_PREFIX": "runs",
            "AWS_REGION": "us-east-1", "AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        }  # fmt: skip
        raw_client(server.endpoint).create_bucket(Bucket="merge-jobs")
        self.storage = Storage.from_env(self.env)
        for name, seed in {"base": 0, "agent": 1}.items():
            self.publish(name, seed)
        self._pods = 0

    def publish(self, name: str, seed: int) -> str:
        """A tiny model at `models/<name>`; its digest."""
        write_tiny_model(self.folder / name, seed=seed)
        return self.storage.publish(self.folder / name, self.uri(f"models/{name}")).digest

    def uri(self, path: str) -> str:
        return f"s3://merge-jobs/{path}"

    def job(self, name: str, *, digests: dict[str, str] | None = None, **spec: Any) -> dict[str, Any]:
        """What the operator hands over for a MergeJob of base and agent."""
        whole = {
            "method": {"taskArithmetic": {}},
            "base": {"uri": self.uri("models/base")},
            "models": [{"name": "agent", "source": {"uri": self.uri("models/agent")}, "weight": "0.5"}],
            **spec,
        }
        sources = {"base": whole["base"], **{f"models.{each['name']}": each["source"] for each in whole["models"]}}
        resolved = {
            field: {"uri": source["uri"], "digest": (digests or {}).get(field)} for field, source in sources.items()
        }
        return {
            "kind": "MergeJob", "namespace": "team", "name": name, "uid": UID, "generation": 1, "spec": whole,
            "resolved": resolved, "runPath": f"team/mergejob/{name}/0f2a5b1c",
        }  # fmt: skip

    def start(self, job: dict[str, Any], *, die_at: int | None = None, **env: str) -> Pod:
        self._pods += 1
        place = self.folder / f"pod-{self._pods}"
        place.mkdir()
        environment = {
            **os.environ, **self.env, "PINNACE_JOB": json.dumps(job), "PINNACE_SCRATCH": str(place / "scratch"),
            "PINNACE_TERMINATION_LOG": str(place / "termination"), "OMP_NUM_THREADS": "2", **env,
        }  # fmt: skip
        with (place / "log").open("w") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "e2e.merge_worker", json.dumps({"job": True, "dieAt": die_at})],
                env=environment, stdout=log, stderr=log, text=True,
            )  # fmt: skip
        return Pod(process, place / "termination", place / "log")

    def run(self, job: dict[str, Any], code: int = 0) -> dict[str, Any]:
        """One attempt to its end; its outcome."""
        pod = self.start(job)
        assert pod.wait() == code, pod.log.read_text()[-3000:]
        return pod.outcome

    def directory(self, job: dict[str, Any]) -> RunDirectory:
        return self.storage.run(job["runPath"])

    def names(self, job: dict[str, Any]) -> list[str]:
        """Everything below the run's folder."""
        root = self.directory(job).uri
        return [root.relative(each.uri) for each in self.storage.list(root)]
