"""What the trainer does besides training: stop when asked, refuse divergence, hand checkpoints and metrics on."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import distributed
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from pinnace.outcome import Diverged


class CheckpointSink(Protocol):
    """Where finished local checkpoints go; called on the first process of every node."""

    def save(self, step: int, directory: Path, eval_loss: float | None) -> None:
        """Takes over `directory` (`model/`, `state/`) and returns at once; it is uploaded in the background."""


def any_process(flag: bool) -> bool:
    """True on every process if `flag` is true on any: all must stop at the same step."""
    if not (distributed.is_initialized() and distributed.get_world_size() > 1):
        return flag
    device = "cuda" if distributed.get_backend() == "nccl" else "cpu"
    tensor = torch.tensor(int(flag), device=device)
    distributed.all_reduce(tensor, op=distributed.ReduceOp.MAX)
    return bool(tensor.item())


class StopOnRequest(TrainerCallback):  # type: ignore[misc] # transformers has no types
    """Checkpoints and ends at the next step once the stop file exists. `stopped` tells why training ended."""

    def __init__(self, stop_file: Path) -> None:
        self._stop_file = stop_file
        self.stopped = False

    def on_step_end(self, _args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if state.global_step < state.max_steps and any_process(self._stop_file.exists()):
            self.stopped = True
            control.should_save = control.should_training_stop = True
        if control.should_save:
            control.should_log = True  # the divergence check below runs before anything is saved


class AlreadyTrained(Exception):
    """The checkpoint resumed from is that of the last step."""


class StopWhenAlreadyTrained(TrainerCallback):  # type: ignore[misc] # transformers has no types
    """Raises `AlreadyTrained` where nothing is left: transformers would train one step too many."""

    def on_train_begin(self, _args: TrainingArguments, state: TrainerState, _control: TrainerControl, **_: Any) -> None:
        if state.global_step >= state.max_steps:
            raise AlreadyTrained


class RefuseDivergence(TrainerCallback):  # type: ignore[misc] # transformers has no types
    """Raises `Diverged` on the first NaN or infinite loss or gradient; a diverged state is never saved."""

    def on_log(
        self, args: TrainingArguments, state: TrainerState, _control: TrainerControl, logs: dict[str, Any], **_: Any
    ) -> None:
        for name in ("loss", "grad_norm", "eval_loss"):
            value = logs.get(name)
            if value is not None and not math.isfinite(value):
                raise Diverged(
                    f"{name} became {value} at step {state.global_step}; lower training.learningRate "
                    f"(now {args.learning_rate:g}) or training.maxGradNorm (now {args.max_grad_norm:g}), raise "
                    "warmupPercent, or look for broken samples; the last checkpoint is from before",
                    step=state.global_step,
                )


class SaveCheckpoints(TrainerCallback):  # type: ignore[misc] # transformers has no types
    """Sorts the trainer's checkpoint folder into `model/` (loadable by transformers) and `state/` (to resume from)."""

    def __init__(self, sink: CheckpointSink, export: Callable[[Path, Path], None]) -> None:
        """`export(checkpoint, model)` moves or writes the model's files from the trainer's folder."""
        self._sink, self._export = sink, export
        self._eval: dict[int, float] = {}

    def on_evaluate(
        self,
        _args: TrainingArguments,
        state: TrainerState,
        _control: TrainerControl,
        metrics: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        if metrics and "eval_loss" in metrics:
            self._eval[state.global_step] = metrics["eval_loss"]

    def on_save(self, args: TrainingArguments, state: TrainerState, _control: TrainerControl, **_: Any) -> None:
        if distributed.is_initialized():
            distributed.barrier()  # every process of this node has written its part
        if args.local_process_index != 0:
            return
        checkpoint = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        staged = Path(args.output_dir) / f"staged-{state.global_step}"
        if args.process_index == 0:
            (staged / "model").mkdir(parents=True)
            self._export(checkpoint, staged / "model")
        shutil.move(checkpoint, staged / "state")
        self._sink.save(state.global_step, staged, self._eval.get(state.global_step))


class Report(TrainerCallback):  # type: ignore[misc] # transformers has no types
    """Hands every log line on as (step, total steps, metrics), with seconds per step and tokens per second added."""

    def __init__(self, emit: Callable[[int, int, dict[str, float]], None]) -> None:
        self._emit = emit
        self._last: tuple[float, int, float] | None = None

    def on_train_begin(self, _args: TrainingArguments, state: TrainerState, _control: TrainerControl, **_: Any) -> None:
        self._last = (time.monotonic(), state.global_step, 0.0)

    def on_log(
        self, args: TrainingArguments, state: TrainerState, _control: TrainerControl, logs: dict[str, Any], **_: Any
    ) -> None:
        if args.process_index != 0:
            return
        metrics = {name: float(value) for name, value in logs.items() if isinstance(value, int | float)}
        if "loss" in metrics and self._last is not None:
            now, tokens = time.monotonic(), metrics.get("num_tokens", 0.0)
            before, step, seen = self._last
            if state.global_step > step:
                metrics["seconds_per_step"] = (now - before) / (state.global_step - step)
                metrics["tokens_per_second"] = (tokens - seen) / max(now - before, 1e-9)
            self._last = (now, state.global_step, tokens)
        self._emit(state.global_step, state.max_steps, metrics)
