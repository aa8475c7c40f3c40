"""The job's spec as the settings of TRL, DeepSpeed and PEFT: pure dict builders, no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pinnace_operator.api.sft import SFTJobSpec

_SCHEDULES = {"Cosine": "cosine", "Linear": "linear", "Constant": "constant_with_warmup"}


def deepspeed_config(spec: SFTJobSpec) -> dict[str, Any]:
    """The DeepSpeed JSON. Fields: https://www.deepspeed.ai/docs/config-json/"""
    training, offload = spec.training, spec.deepspeed.offload
    zero: dict[str, Any] = {"stage": spec.deepspeed.zero_stage, "contiguous_gradients": True}
    if spec.deepspeed.zero_stage == 3:
        # Without it an exported model has no weights; tied embeddings then break the offline converter.
        zero["stage3_gather_16bit_weights_on_model_save"] = True
    if offload != "None":
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": spec.trainer.device == "cuda"}
    if offload == "OptimizerAndParameters":
        zero["offload_param"] = {"device": "cpu", "pin_memory": spec.trainer.device == "cuda"}
    return {
        "train_batch_size": training.global_batch_size * spec.deepspeed.sequence_parallel,
        "train_micro_batch_size_per_gpu": training.micro_batch_size,
        "gradient_accumulation_steps": spec.gradient_accumulation_steps,
        "gradient_clipping": float(training.max_grad_norm),
        "bf16": {"enabled": training.precision == "bf16"},
        "zero_optimization": zero,
        # The optimizer is torch's AdamW, sharded by ZeRO; DeepSpeed's own CPU Adam needs a compiler in the pod.
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": 1_000_000_000,
    }


def trainer_arguments(spec: SFTJobSpec, output: Path) -> dict[str, Any]:
    """Keyword arguments of TRL's `SFTConfig` (without the sequence-parallel part, which needs Accelerate's classes)."""
    training = spec.training
    return {
        "output_dir": str(output),
        "per_device_train_batch_size": training.micro_batch_size,
        "per_device_eval_batch_size": training.micro_batch_size,
        "gradient_accumulation_steps": spec.gradient_accumulation_steps,
        "num_train_epochs": training.epochs,
        "max_steps": training.max_steps or -1,
        "learning_rate": float(training.learning_rate),
        "lr_scheduler_type": _SCHEDULES[training.schedule],
        "warmup_steps": training.warmup_percent / 100,  # below 1 it is a share of all steps
        "weight_decay": float(training.weight_decay),
        "max_grad_norm": float(training.max_grad_norm),
        "bf16": training.precision == "bf16",
        "gradient_checkpointing": training.gradient_checkpointing,
        "seed": training.seed,
        "data_seed": training.seed,
        "max_length": training.max_length,
        "packing": training.packing,
        # Ulysses cuts every batch into equal pieces along the sequence.
        "pad_to_multiple_of": spec.deepspeed.sequence_parallel if spec.deepspeed.sequence_parallel > 1 else None,
        # Our sequences are complete: only packing needs TRL's preparation.
        "dataset_kwargs": {"skip_prepare_dataset": not training.packing},
        "logging_steps": training.log_every_steps,
        "logging_nan_inf_filter": False,  # it would replace a NaN loss by an average and hide the divergence
        "disable_tqdm": True,
        "report_to": [
            *(["tensorboard"] if spec.tracking.tensorboard else []),
            *(["wandb"] if spec.tracking.wandb else []),
        ],
        "eval_strategy": "steps" if training.eval_every_steps else "no",
        "eval_steps": training.eval_every_steps or None,
        "save_strategy": "steps",
        "save_steps": spec.checkpoint.every_steps,
        "save_on_each_node": False,
        # Never `use_cpu`: it switches DeepSpeed off. Without a visible GPU everything runs on the CPU anyway.
        "dataloader_pin_memory": spec.trainer.device == "cuda",
        "deepspeed": deepspeed_config(spec),
    }


def lora_arguments(spec: SFTJobSpec) -> dict[str, Any] | None:
    """Keyword arguments of PEFT's `LoraConfig`; None for full fine-tuning."""
    if spec.lora is None:
        return None
    targets = list(spec.lora.target_modules)
    return {
        "task_type": "CAUSAL_LM",
        "r": spec.lora.rank,
        "lora_alpha": spec.lora.alpha,
        "lora_dropout": float(spec.lora.dropout),
        "target_modules": "all-linear" if targets == ["all-linear"] else targets,
    }
