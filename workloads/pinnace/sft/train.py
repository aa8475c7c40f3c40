"""One training process: `python -m pinnace.sft.train`, started by torchrun, once per GPU (or per CPU process).

Reads top to bottom: tokenised data and model from local disk, TRL's SFTTrainer on DeepSpeed, checkpoints to S3 in the
background, the finished model to local disk. The supervisor prepared the input and publishes the output.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import deepspeed
import torch
from accelerate import ParallelismConfig, PartialState
from accelerate.utils import DeepSpeedSequenceParallelConfig
from datasets import Dataset
from peft import LoraConfig
from pinnace_operator.api.sft import SFTJobSpec
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.trainer_pt_utils import AcceleratorConfig
from trl import SFTConfig, SFTTrainer

from pinnace.outcome import ModelUnusable
from pinnace.sft import export, settings
from pinnace.sft.callbacks import (
    AlreadyTrained,
    CheckpointSink,
    RefuseDivergence,
    Report,
    SaveCheckpoints,
    StopOnRequest,
    StopWhenAlreadyTrained,
)
from pinnace.sft.dataset import held_out
from pinnace.sft.scratch import Scratch


class TiedTrainer(SFTTrainer):  # type: ignore[misc] # TRL has no types
    """DeepSpeed hands out copies of tied weights; saved as they are, the embedding would be in the file twice."""

    def _save(self, output_dir: str | None = None, state_dict: dict[str, torch.Tensor] | None = None) -> None:
        for name in getattr(self.model, "all_tied_weights_keys", {}):
            if state_dict is not None:
                state_dict.pop(name, None)
        super()._save(output_dir, state_dict)


def train(
    spec: SFTJobSpec,
    scratch: Scratch,
    sink: CheckpointSink,
    emit: Callable[[int, int, dict[str, float]], None],
    chat_template: str | None = None,
    resumed_from: int = 0,
) -> int | None:
    """Trains to the end (None; the model is in `scratch.output`), or until asked to stop (the step that was saved).

    Raises `ModelUnusable` before the first step, `Diverged` at a NaN or infinite loss.
    """
    on_cpu = spec.trainer.device == "cpu"
    deepspeed.init_distributed(dist_backend="gloo" if on_cpu else "nccl")
    if on_cpu:
        # Left alone, Accelerate looks for GPUs only and takes a group of CPU processes for a single one.
        with patch.dict(os.environ, ACCELERATE_USE_DEEPSPEED="true"):
            PartialState(backend="gloo")
    # transformers refuses bf16 without a GPU unless told `use_cpu`, which would switch DeepSpeed off.
    with patch("transformers.training_args.is_torch_bf16_gpu_available", return_value=True):
        arguments = SFTConfig(
            **settings.trainer_arguments(spec, scratch.work),
            parallelism_config=_parallelism(spec),
            accelerator_config=AcceleratorConfig(use_configured_state=on_cpu),  # a dict would be read too late
        )
    dtype = torch.bfloat16 if spec.training.precision == "bf16" else torch.float32
    try:
        model = AutoModelForCausalLM.from_pretrained(scratch.model, dtype=dtype, attn_implementation="sdpa")
        tokenizer = AutoTokenizer.from_pretrained(scratch.model)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise ModelUnusable(f"transformers cannot load spec.model: {error}") from error
    train_data, eval_data = _datasets(spec, scratch)
    lora = settings.lora_arguments(spec)

    def write_model(source: Path, directory: Path) -> None:
        if lora is None:
            for path in [*source.glob("model*.safetensors*"), source / "config.json"]:
                shutil.move(path, directory / path.name)
        else:
            export.merge_adapter(scratch.model, source, directory, dtype)
            (directory / "adapter").mkdir()
            for name in ("adapter_config.json", "adapter_model.safetensors"):
                shutil.copyfile(source / name, directory / "adapter" / name)
        export.complete(directory, scratch.model, chat_template)

    stop = StopOnRequest(scratch.stop)
    trainer = TiedTrainer(
        model=model,
        args=arguments,
        processing_class=tokenizer,
        train_dataset=train_data,
        eval_dataset=eval_data,
        peft_config=LoraConfig(**lora) if lora else None,
        callbacks=[
            StopWhenAlreadyTrained(),
            stop,
            RefuseDivergence(),
            SaveCheckpoints(sink, write_model),
            Report(emit),
        ],
    )
    _agree(resumed_from)
    with contextlib.suppress(AlreadyTrained):
        trainer.train(resume_from_checkpoint=str(scratch.resume) if resumed_from else None)
    if stop.stopped:
        return int(trainer.state.global_step)
    if eval_data is not None:
        trainer.evaluate()
    weights = scratch.root / "weights"
    trainer.save_model(str(weights))
    if arguments.process_index == 0:
        scratch.output.mkdir(parents=True)
        write_model(weights, scratch.output)
    return None


def _agree(step: int) -> None:
    """Each node chose its checkpoint by itself; from different ones they would train nonsense."""
    steps: list[int | None] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(steps, step)
    if len(set(steps)) > 1:
        raise RuntimeError(f"the nodes found different checkpoints ({steps}); the next attempt chooses again")


def _parallelism(spec: SFTJobSpec) -> ParallelismConfig | None:
    size = spec.deepspeed.sequence_parallel
    if size == 1:
        return None
    handler = DeepSpeedSequenceParallelConfig(sp_seq_length_is_variable=True, sp_attn_implementation="sdpa")
    return ParallelismConfig(
        sp_backend="deepspeed",
        sp_size=size,
        dp_shard_size=spec.data_parallel_size,
        sp_handler=handler,
    )


def _datasets(spec: SFTJobSpec, scratch: Scratch) -> tuple[Dataset, Dataset | None]:
    samples = Dataset.from_file(str(scratch.data / "train.arrow"))
    separate = scratch.data / "eval.arrow"
    if separate.exists():
        return samples, Dataset.from_file(str(separate))
    conversations = samples["conversation"]
    aside = held_out(max(conversations) + 1, spec.data.eval_percent, spec.training.seed)
    if not aside:
        return samples, None
    kept = [row for row, conversation in enumerate(conversations) if conversation not in aside]
    held = [row for row, conversation in enumerate(conversations) if conversation in aside]
    return samples.select(kept), samples.select(held)
