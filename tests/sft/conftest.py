"""Training runs on the tiny model: in forked processes (numerics), and as whole pods against a real S3."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import psutil
import pytest
from pinnace.chat import ChatTokenizer, Renderer
from pinnace.records import Record
from pinnace.sft.dataset import RenderPolicy, write_samples
from pinnace.storage import RunDirectory, Storage
from pinnace.tiny.model import write_tiny_model
from pinnace.tiny.task import arithmetic_tools

from e2e.apiserver import free_port
from e2e.s3 import ACCESS_KEY, SECRET_KEY, S3Server, s3_server

BUILTIN = {"builtin": {"name": "arithmetic-tools", "samples": 96, "seed": 0}}


def merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    return base | {
        key: merged(base[key], value) if isinstance(value, dict) and isinstance(base.get(key), dict) else value
        for key, value in changes.items()
    }


def tiny_spec(**changes: Any) -> dict[str, Any]:
    """A complete, quick spec; `changes` are merged into it."""
    spec: dict[str, Any] = {
        "model": {"uri": "s3://bucket/models/tiny"},
        "data": {"train": BUILTIN},
        "training": {
            "maxSteps": 6, "globalBatchSize": 8, "microBatchSize": 8, "maxLength": 512, "learningRate": "3e-3",
            "precision": "fp32", "gradientCheckpointing": False,
        },
        "checkpoint": {"everySteps": 3},
        "trainer": {"device": "cpu"},
    }  # fmt: skip
    return merged(spec, changes)


@dataclass(frozen=True)
class Run:
    """What a forked run left behind."""

    root: Path
    result: dict[str, Any]

    @property
    def losses(self) -> list[float]:
        return [line["loss"] for line in self.result["history"] if "loss" in line]


class Trainer:
    """Hands runs to the zygote."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.prepared = folder / "prepared"
        write_tiny_model(self.prepared / "model")
        (self.prepared / "data").mkdir()
        self._renderer = Renderer(ChatTokenizer.from_directory(self.prepared / "model"))
        self._render(self.prepared, 96)
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("zygote.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu", "TOKENIZERS_PARALLELISM": "false"},
        )
        while self._answer() != "ready":
            pass

    def _answer(self) -> str:
        assert self._process.stdout
        line = self._process.stdout.readline()
        assert line, "the zygote ended"
        return line.strip()

    def _render(self, root: Path, samples: int) -> None:
        records = (Record(str(line), value) for line, value in enumerate(arithmetic_tools(samples, seed=0)))
        write_samples(records, self._renderer, RenderPolicy(512), root / "data" / "train.arrow")

    def scratch(self, name: str) -> Path:
        root = self._folder / name
        shutil.copytree(self.prepared, root)
        return root

    def start(self, root: Path, *, processes: int = 1, resumed_from: int = 0, **changes: Any) -> list[int]:
        """Trains in `root` and returns the processes' exit codes."""
        spec = tiny_spec(trainer={"processesPerNode": processes}, **changes)
        request = {
            "root": str(root),
            "spec": spec,
            "processes": processes,
            "port": free_port(),
            "resumed_from": resumed_from,
        }
        assert self._process.stdin
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        while not (answer := self._answer()).startswith("["):
            pass
        codes: list[int] = json.loads(answer)
        return codes

    def run(self, name: str, *, root: Path | None = None, many: int = 0, **settings: Any) -> Run:
        """Trains, and expects it to work; `many` samples instead of 96."""
        root = root or self.scratch(name)
        if many:
            self._render(root, many)
        codes = self.start(root, **settings)
        assert set(codes) == {0}, (root / "log-0").read_text()[-3000:]
        return Run(root, json.loads((root / "result.json").read_text()))

    def close(self) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait()


@pytest.fixture(scope="session")
def trainer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trainer]:
    made = Trainer(tmp_path_factory.mktemp("trainer"))
    yield made
    made.close()


@pytest.fixture(scope="session")
def plain(trainer: Trainer) -> Run:
    """The reference: one process, ZeRO-2, no extras, 6 steps of 8 sequences."""
    return trainer.run("plain")


@dataclass
class Pod:
    """`pinnace sft train` as the operator starts it, in a scratch directory of its own."""

    process: subprocess.Popen[str]
    scratch: Path
    output: Path

    def wait(self, timeout: float = 300) -> int:
        return self.process.wait(timeout)

    @property
    def outcome(self) -> dict[str, Any]:
        outcome: dict[str, Any] = json.loads(self.scratch.with_suffix(".termination").read_text())
        return outcome

    def steps(self) -> int:
        """Training steps that were logged so far."""
        return self.output.read_text().count("'loss': ")

    def until(self, condition: Callable[[], bool], timeout: float = 240) -> None:
        deadline = time.monotonic() + timeout
        while not condition():
            assert self.process.poll() is None, self.output.read_text()[-3000:]
            assert time.monotonic() < deadline, self.output.read_text()[-3000:]
            time.sleep(0.05)

    def workers(self) -> list[psutil.Process]:
        children = psutil.Process(self.process.pid).children(recursive=True)
        return [child for child in children if child.cmdline()[1:] == ["-u", "-m", "pinnace.sft.worker"]]


class Cluster:
    """One bucket with the tiny model in it, and pods that use it."""

    def __init__(self, server: S3Server, bucket: str, folder: Path) -> None:
        self.server, self.bucket, self.folder = server, bucket, folder
        self.env = {
            "PINNACE_S3_ENDPOINT": server.endpoint,
            "PINNACE_S3_BUCKET": bucket,
            "PINNACE_S3_PREFIX": "runs",
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        }
        client = boto3.client(
            "s3",
            endpoint_url=server.endpoint,
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
            region_name="us-east-1",
        )
        client.create_bucket(Bucket=bucket)
        self.storage = Storage.from_env(self.env)
        write_tiny_model(folder / "tiny")
        self.storage.publish(folder / "tiny", self.uri("models/tiny"))
        self._pods: list[Pod] = []

    def uri(self, path: str) -> str:
        return f"s3://{self.bucket}/{path}"

    def job(self, name: str, **changes: Any) -> dict[str, Any]:
        spec = tiny_spec(model={"uri": self.uri("models/tiny")}, **changes)
        resolved = {"model": {"uri": spec["model"]["uri"]}}
        return {
            "kind": "SFTJob", "namespace": "team", "name": name, "uid": "0f2a5b1c-0000", "generation": 1, "spec": spec,
            "resolved": resolved, "runPath": f"team/sftjob/{name}/0f2a5b1c",
        }  # fmt: skip

    def run_of(self, job: dict[str, Any]) -> RunDirectory:
        return self.storage.run(job["runPath"])

    def start(self, job: dict[str, Any], *, attempt: int = 0, node: int = 0, **env: str) -> Pod:
        scratch = self.folder / f"{job['name']}-{attempt}-{node}"
        output = scratch.with_suffix(".log")
        environment = {
            **os.environ,
            **self.env,
            "PINNACE_JOB": json.dumps(job),
            "PINNACE_ATTEMPT": str(attempt),
            "PINNACE_SCRATCH": str(scratch),
            "PINNACE_TERMINATION_LOG": str(scratch.with_suffix(".termination")),
            "JOB_COMPLETION_INDEX": str(node),
            "PINNACE_MASTER_PORT": str(free_port()),
            "OMP_NUM_THREADS": "1",
            **env,
        }
        with output.open("w") as log:
            process = subprocess.Popen(
                [sys.executable, "-c", "from pinnace.cli import main; main()", "sft", "train"],
                env=environment,
                stdout=log,
                stderr=log,
                text=True,
            )
        pod = Pod(process, scratch, output)
        self._pods.append(pod)
        return pod

    def history(self, job: dict[str, Any], attempt: int = 0) -> dict[int, float]:
        """Loss by step, as the newest attempt tells it."""
        with self.storage.open(self.run_of(job).history / f"metrics-{attempt}.jsonl") as stream:
            lines = [json.loads(line) for line in stream.read().decode().splitlines()]
        return {line["step"]: line["loss"] for line in lines if "loss" in line}

    def close(self) -> None:
        for pod in self._pods:
            if pod.process.poll() is None:
                for child in psutil.Process(pod.process.pid).children(recursive=True):
                    child.kill()
                pod.process.kill()
                pod.process.wait()


@pytest.fixture(scope="session")
def cluster(s3: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    made = Cluster(s3, "sft-tests", tmp_path_factory.mktemp("pods"))
    yield made
    made.close()


@pytest.fixture
def fragile_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """With an S3 server of its own that the test may stop."""
    with s3_server() as server:
        made = Cluster(server, "fragile", tmp_path_factory.mktemp("fragile"))
        yield made
        made.close()
