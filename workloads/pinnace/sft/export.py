"""The trained model as a Hugging Face folder that transformers, vLLM and SGLang load."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

# Everything beside the weights and config.json is byte for byte the base model's, so that what is served tokenises and
# stops exactly as what was trained.
_FROM_BASE = (
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "chat_template*",
    "generation_config.json",
    "LICENSE*",
)


def complete(directory: Path, base: Path, chat_template: str | None) -> None:
    """Adds to exported weights what a model folder needs besides; `chat_template` replaces the base model's."""
    for pattern in _FROM_BASE:
        for path in base.glob(pattern):
            if path.is_file():
                shutil.copyfile(path, directory / path.name)
    if chat_template is not None:
        (directory / "chat_template.jinja").write_text(chat_template)


def merge_adapter(base: Path, adapter: Path, output: Path, dtype: torch.dtype) -> None:
    """Writes base weights plus LoRA, W + alpha/r · B·A (https://arxiv.org/abs/2106.09685 §4.1), tensor by tensor.

    Works on files, so that neither ZeRO's partitions nor the running model are touched. Raises `ValueError` where an
    adapter weight has no base weight (nothing may be lost).
    """
    settings = json.loads((adapter / "adapter_config.json").read_text())
    scale = settings["lora_alpha"] / (settings["r"] ** 0.5 if settings.get("use_rslora") else settings["r"])
    factors: dict[str, dict[str, torch.Tensor]] = {}
    for name, tensor in load_file(adapter / "adapter_model.safetensors").items():
        target, _, factor = name.removeprefix("base_model.model.").partition(".lora_")
        factors.setdefault(f"{target}.weight", {})[factor.partition(".")[0]] = tensor.float()
    output.mkdir(parents=True, exist_ok=True)
    for shard in sorted(base.glob("model*.safetensors")):
        merged: dict[str, torch.Tensor] = {}
        with safe_open(shard, "pt") as weights:
            for name in weights.keys():  # noqa: SIM118 - safetensors' handle is no mapping
                tensor = weights.get_tensor(name)
                if (pair := factors.pop(name, None)) is not None:
                    tensor = tensor.float() + scale * (pair["B"] @ pair["A"])
                merged[name] = tensor.to(dtype).contiguous()
        save_file(merged, output / shard.name, metadata={"format": "pt"})
    if factors:
        raise ValueError(f"the adapter changes weights that the base model does not have: {sorted(factors)[:3]}")
    for path in [*base.glob("model*.safetensors.index.json"), base / "config.json"]:
        shutil.copyfile(path, output / path.name)
    config = json.loads((output / "config.json").read_text())
    config.update({key: str(dtype).removeprefix("torch.") for key in ("dtype", "torch_dtype") if key in config})
    (output / "config.json").write_text(json.dumps(config, indent=2) + "\n")
