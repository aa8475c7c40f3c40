"""The policy as a Hugging Face folder that transformers, vLLM and SGLang load."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from .protocol import TrainEngine

SHARD_BYTES = 4 * 2**30


def export(engine: TrainEngine, base: Path, directory: Path | None) -> None:
    """Weights in shards, and everything beside the weights from `base`, byte for byte, but for the dtype in its config.

    Every rank calls it, because gathering a weight takes all; the one that writes gives a `directory`.
    """
    shard: dict[str, Tensor] = {}
    index: dict[str, str] = {}
    shards, total, dtype = 0, 0, torch.float32

    def flush() -> None:
        nonlocal shard, shards
        if shard and directory is not None:
            shards += 1
            save_file(shard, directory / _name(shards), metadata={"format": "pt"})
            index.update(dict.fromkeys(shard, _name(shards)))
        shard = {}

    for name, value in engine.weights():
        if directory is None:
            continue
        tensor = value.cpu().contiguous()
        size, dtype = tensor.numel() * tensor.element_size(), tensor.dtype
        if sum(one.numel() * one.element_size() for one in shard.values()) + size > SHARD_BYTES:
            flush()
        shard[name], total = tensor, total + size
    flush()
    if directory is None:
        return
    if shards == 1:
        (directory / _name(1)).rename(directory / "model.safetensors")
    else:
        document = {"metadata": {"total_size": total}, "weight_map": index}
        (directory / "model.safetensors.index.json").write_text(json.dumps(document, indent=2) + "\n")
    for path in base.iterdir():
        if path.is_file() and not path.name.startswith(("model", "pytorch_model", "artifact.json", "manifest.json")):
            shutil.copyfile(path, directory / path.name)
    config: dict[str, Any] = json.loads((base / "config.json").read_text())
    config |= {key: str(dtype).removeprefix("torch.") for key in ("dtype", "torch_dtype") if key in config}
    (directory / "config.json").write_text(json.dumps(config, indent=2) + "\n")


def _name(number: int) -> str:
    return f"model-{number:05d}.safetensors"
