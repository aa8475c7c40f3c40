"""What Pinnace adds to TRL: `python -m e2e.bench.sft` prints ratios of our SFT to a bare TRL script.

Both train the tiny model on the same sequences with the same DeepSpeed configuration through torchrun, alternating.
`step` is the usual time of a step after warm-up; `total` and `cpu` are the whole process, ours with download,
validation, rendering, a checkpoint and publishing to a real S3. Numbers are printed, not asserted.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
from pinnace.chat import ChatTokenizer, Renderer
from pinnace.records import Record
from pinnace.sft import settings
from pinnace.sft.dataset import RenderPolicy, write_samples
from pinnace.storage import Storage
from pinnace.tiny.model import write_tiny_model
from pinnace.tiny.task import arithmetic_tools
from pinnace_operator.api.sft import SFTJobSpec

from e2e.apiserver import free_port
from e2e.s3 import ACCESS_KEY, SECRET_KEY, S3Server, s3_server

ROUNDS, STEPS, WARM_UP = 5, 120, 20  # with 40 steps a round, chance decides which is quicker
SPEC: dict[str, Any] = {
    "model": {"uri": "s3://bench/models/tiny"},
    "data": {"train": {"builtin": {"name": "arithmetic-tools", "samples": 640, "seed": 0}}},
    "training": {
        "maxSteps": STEPS, "globalBatchSize": 16, "microBatchSize": 16, "maxLength": 512, "learningRate": "3e-3",
        "precision": "fp32", "gradientCheckpointing": False,
    },
    "checkpoint": {"everySteps": STEPS},
    "trainer": {"device": "cpu"},
}  # fmt: skip

# The bare script: what a user of TRL writes. It gets its arguments as JSON and prints the seconds of each step.
BARE = """
import json, os, sys, time
from unittest.mock import patch
import deepspeed
deepspeed.init_distributed(dist_backend="gloo")
from accelerate import PartialState
with patch.dict(os.environ, ACCELERATE_USE_DEEPSPEED="true"):
    PartialState(backend="gloo")
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from transformers.trainer_pt_utils import AcceleratorConfig
from trl import SFTConfig, SFTTrainer
model, data, arguments = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
class Clock(TrainerCallback):
    times = [time.monotonic()]
    def on_step_end(self, *args, **kwargs):
        self.times.append(time.monotonic())
trainer = SFTTrainer(
    model=AutoModelForCausalLM.from_pretrained(model),
    args=SFTConfig(**arguments, accelerator_config=AcceleratorConfig(use_configured_state=True)),
    processing_class=AutoTokenizer.from_pretrained(model),
    train_dataset=Dataset.from_file(data),
    callbacks=[Clock],
)
trainer.train()
trainer.save_model(arguments["output_dir"] + "/final")
print("STEPS", json.dumps([b - a for a, b in zip(Clock.times, Clock.times[1:])]))
"""


@dataclass(frozen=True)
class Timing:
    """Seconds: a step, the whole process by the clock, and the processor time of the process and all its children.

    A step is the lower quartile after warm-up: other programs on the machine only ever add time.
    """

    step: float
    total: float
    cpu: float


def cpu_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def usual(steps: list[float]) -> float:
    return statistics.quantiles(steps[WARM_UP:], n=4)[0]


def bare(folder: Path, round_: int) -> Timing:
    """One run of the bare script."""
    script = folder / "bare.py"
    script.write_text(BARE)
    arguments = settings.trainer_arguments(SFTJobSpec.from_manifest(SPEC), folder / f"bare-{round_}")
    began, used = time.monotonic(), cpu_of_children()
    result = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=1", f"--master-port={free_port()}",
         str(script), str(folder / "model"), str(folder / "train.arrow"), json.dumps(arguments)],
        env=os.environ | {"DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "2", "TOKENIZERS_PARALLELISM": "false"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    total, cpu = time.monotonic() - began, cpu_of_children() - used
    steps = json.loads(next(line for line in result.stdout.splitlines() if line.startswith("STEPS"))[6:])
    return Timing(usual(steps), total, cpu)


def run_path(round_: int) -> str:
    return f"bench/sftjob/bench-{round_}/bench"


def ours(folder: Path, round_: int, server: S3Server) -> Timing:
    """One run of `pinnace sft train`."""
    name = f"bench-{round_}"
    job = {
        "kind": "SFTJob", "namespace": "bench", "name": name, "uid": "bench", "generation": 1, "spec": SPEC,
        "resolved": {"model": {"uri": "s3://bench/models/tiny"}}, "runPath": run_path(round_),
    }  # fmt: skip
    environment = (
        os.environ
        | storage_environment(server)
        | {
            "PINNACE_JOB": json.dumps(job),
            "PINNACE_SCRATCH": str(folder / name),
            "PINNACE_TERMINATION_LOG": str(folder / f"{name}.termination"),
            "PINNACE_MASTER_PORT": str(free_port()),
            "OMP_NUM_THREADS": "2",
        }
    )
    began, used = time.monotonic(), cpu_of_children()
    command = [sys.executable, "-c", "from pinnace.cli import main; main()", "sft", "train"]
    subprocess.run(command, env=environment, capture_output=True, check=True)
    total, cpu = time.monotonic() - began, cpu_of_children() - used
    storage = Storage.from_env(storage_environment(server))
    with storage.open(storage.run(run_path(round_)).history / "metrics-0.jsonl") as stream:
        lines = [json.loads(line) for line in stream.read().splitlines()]
    steps = [line["seconds_per_step"] for line in lines if "seconds_per_step" in line]
    return Timing(usual(steps), total, cpu)


def storage_environment(server: S3Server) -> dict[str, str]:
    return {
        "PINNACE_S3_ENDPOINT": server.endpoint,
        "PINNACE_S3_BUCKET": "bench",
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
    }


def main() -> None:
    with s3_server() as server, tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        boto3.client(
            "s3",
            endpoint_url=server.endpoint,
            region_name="us-east-1",
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
        ).create_bucket(Bucket="bench")
        write_tiny_model(folder / "model")
        Storage.from_env(storage_environment(server)).publish(folder / "model", "s3://bench/models/tiny")
        renderer = Renderer(ChatTokenizer.from_directory(folder / "model"))
        records = [Record(str(line), value) for line, value in enumerate(arithmetic_tools(640, 0))]
        write_samples(records, renderer, RenderPolicy(512), folder / "train.arrow")
        timings: list[tuple[Timing, Timing]] = []
        for round_ in range(ROUNDS):
            timings.append((bare(folder, round_), ours(folder, round_, server)))
            theirs, own = timings[-1]
            print(
                f"round {round_}: bare {theirs.step:.3f} s/step, {theirs.total:.1f} s, {theirs.cpu:.1f} s of CPU; ",
                end="",
            )
            print(f"ours {own.step:.3f} s/step, {own.total:.1f} s, {own.cpu:.1f} s of CPU", flush=True)
        for figure in ("step", "total", "cpu"):
            ratios = [getattr(own, figure) / getattr(theirs, figure) for theirs, own in timings]
            rounds = ", ".join(f"{ratio:.3f}" for ratio in ratios)
            print(f"{figure} time, ours / bare TRL: {statistics.median(ratios):.3f} (rounds: {rounds})")


if __name__ == "__main__":
    main()
