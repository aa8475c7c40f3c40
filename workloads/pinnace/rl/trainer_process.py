"""The trainer's process, or, with DeepSpeed, each of its processes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import torch
from pinnace_operator.api.outcome import ExitCode, Outcome
from pinnace_operator.api.status import OutputRef
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM

from pinnace.chat import ChatTokenizer
from pinnace.outcome import InvalidSpec, ModelUnusable
from pinnace.progress import Identity, Progress
from pinnace.shutdown import Shutdown
from pinnace.storage import Committed, Event, History, Published, RunDirectory, S3Uri, Storage

from . import plot
from .checkpoints import Checkpoints, DiskCheckpoints, S3Checkpoints
from .config import RunConfig
from .control.wire import Line, run_key
from .engine.policy import Policy
from .engine.protocol import TrainEngine
from .engine.ranks import Ranks
from .engine.torch_engine import TorchEngine
from .loss import CORRECTIONS, LOSSES
from .metrics import METRICS
from .outlet import Outlet
from .report import Report
from .signal.advantage import ADVANTAGES
from .trainer import train
from .weights import weights_at

PLOT = "reward.svg"


def run(config: RunConfig) -> Outcome | None:
    """One rank's whole life. Raises what `pinnace.outcome.run_stage` makes an exit code of."""
    shutdown = Shutdown().install()
    check(config)
    torch.manual_seed(config.seed)
    engine = make_engine(config)
    ranks, key = Ranks(), run_key()
    line = partial(Line, key=key, patience=config.patience_seconds, stopping=lambda: shutdown.requested)
    coordinator, proxy = line(config.coordinator), line(config.proxy)
    weights = weights_at(config.storage, config.folder)
    outlet = Outlet(coordinator, proxy, weights, output=partial(_output, config))
    report = Report(config.steps, progress=_progress(), history=_history(config) if ranks.first else None)
    try:
        probe = tuple(ChatTokenizer.from_directory(config.model).encode(config.probe.prompt))
        done = train(config, engine, outlet, _checkpoints(config, outlet, report), probe, shutdown, ranks, report)
    finally:
        outlet.close()
        coordinator.close()
        proxy.close()
        report.close()
    if done is None:
        return None
    return Outcome(
        reason=ExitCode.COMPLETED.reason,
        message=f"the model is at {done.uri}",
        exit_code=0,
        step=config.steps,
        output=OutputRef(uri=done.uri, digest=done.digest) if done.digest else None,
    )


def check(config: RunConfig) -> None:
    """Before the model is loaded. Raises `InvalidSpec`."""
    config.check()
    names: list[tuple[str, str, Mapping[str, object]]] = [
        ("loss.name", config.loss.name, LOSSES),
        ("signal.advantage", config.signal.advantage, ADVANTAGES),
        *(("loss.corrections", name, CORRECTIONS) for name in config.loss.corrections),
    ]
    for field, name, known in names:
        if name not in known:
            raise InvalidSpec(f"{field}: {name!r} is not known: use {', '.join(known)}")


def make_engine(config: RunConfig) -> TrainEngine:
    """Raises `ModelUnusable`."""
    given = config.engine
    if given.kind == "deepspeed":
        import deepspeed

        deepspeed.init_distributed(dist_backend="gloo" if given.device == "cpu" else "nccl")
    dtype = torch.bfloat16 if given.bf16 else torch.float32
    try:
        model: Any = AutoModelForCausalLM.from_pretrained(config.model, dtype=dtype, attn_implementation="sdpa")
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise ModelUnusable(f"transformers cannot load the model: {error}") from error
    policy = Policy(model, temperature=config.temperature, gradient_checkpointing=given.gradient_checkpointing)
    clip = config.optimizer.max_grad_norm
    if given.kind == "torch":
        return TorchEngine(policy.to(given.device), token_budget=given.token_budget, max_grad_norm=clip)
    from .engine.deepspeed_engine import DeepSpeedEngine

    return DeepSpeedEngine(
        policy,
        token_budget=given.token_budget,
        zero_stage=given.zero_stage,
        offload_optimizer=given.offload_optimizer,
        bf16=given.bf16,
        max_grad_norm=clip,
    )


def launch(path: Path, config: RunConfig) -> int:
    """Starts the ranks on this machine, hands SIGTERM on, and returns the exit code of rank 0, or of the first to fail.

    Ranks wait for each other, so the end of one that failed is the end of all.
    """
    port = os.environ.get("MASTER_PORT", "29400")
    processes = config.trainer_processes
    common = os.environ | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(processes)}
    if config.engine.device == "cpu":
        common |= {"DS_ACCELERATOR": "cpu"}
    ranks = [
        subprocess.Popen(
            [sys.executable, "-m", "pinnace", "rl", "rank", str(path)],
            env=common | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(processes)
    ]

    def hand_on(_signal: int, _frame: object) -> None:
        for rank in ranks:
            with suppress(ProcessLookupError):
                rank.terminate()

    signal.signal(signal.SIGTERM, hand_on)
    ended: dict[int, int] = {}
    while len(ended) < processes:
        pid, status = os.wait()
        number = next((number for number, rank in enumerate(ranks) if rank.pid == pid), None)
        if number is None:
            continue
        ended[number] = ranks[number].returncode = os.waitstatus_to_exitcode(status)
        if ended[number] not in {0, ExitCode.CHECKPOINTED}:
            for rank in ranks:
                if rank.returncode is None:
                    rank.kill()
            return abs(ended[number])
    return ended[0]


def _progress() -> Progress | None:
    """To the operator that made this pod; None where none did."""
    if "PINNACE_JOB" not in os.environ:
        return None
    job = json.loads(os.environ["PINNACE_JOB"])
    attempt = job.get("firstAttempt", 0) + int(os.environ.get("PINNACE_ATTEMPT") or 0)
    return Progress.from_env(Identity(job["kind"], job["namespace"], job["name"], job["uid"], attempt))


def _checkpoints(config: RunConfig, outlet: Outlet, report: Report) -> Checkpoints:
    folder, keep = config.folder / "checkpoints", config.keep_checkpoints
    if config.storage is None:
        return DiskCheckpoints(folder, keep=keep, durable=outlet.durable)

    def listen(event: Event) -> None:
        if isinstance(event, Committed):
            report.durable(event.checkpoint.ref)
            outlet.durable(event.checkpoint.step)

    return S3Checkpoints(_run_directory(config.storage, listen), folder, keep=keep)


def _run_directory(address: str, listener: Callable[[Event], None] = lambda _: None) -> RunDirectory:
    storage, uri = Storage.from_env(), S3Uri.parse(address)
    if not str(uri).startswith(f"{storage.settings.root}/"):
        raise InvalidSpec(f"storage: {uri} is not below {storage.settings.root}, which the environment names")
    return storage.run(storage.settings.root.relative(uri), listener=listener)


def _history(config: RunConfig) -> History | None:
    """Metrics and their picture in S3."""
    if config.storage is None:
        return None
    metrics = config.folder / METRICS

    def read() -> bytes:
        return metrics.read_bytes() if metrics.exists() else b""

    return History(_run_directory(config.storage), {METRICS: read, PLOT: lambda: plot.reward(read().decode()).encode()})


def _output(config: RunConfig, write: Callable[[Path], None]) -> Published:
    """The finished model at `output` of the run's storage, or folder."""
    with tempfile.TemporaryDirectory(dir=config.folder) as folder:
        made = Path(folder) / "output"
        made.mkdir()
        write(made)
        if config.storage is not None:
            storage = Storage.from_env()
            return storage.publish(made, S3Uri.parse(config.storage) / "output", base_model=str(config.model))
        final = config.folder / "output"
        shutil.rmtree(final, ignore_errors=True)
        made.rename(final)
        return Published(str(final), "")
