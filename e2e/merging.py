"""Models to merge: made by shape, with weights that differ as fine-tuned ones do."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

SHARD = "model-{:05d}-of-{:05d}.safetensors"


@dataclass(frozen=True)
class Shape:
    """The dimensions of a Qwen3. The defaults are small and odd: nothing is a power of two."""

    layers: int = 3
    hidden: int = 40
    inner: int = 72
    vocabulary: int = 131
    heads: int = 4
    kv_heads: int = 2
    head: int = 12
    tied: bool = True

    @classmethod
    def qwen3_4b(cls, *, layers: int, vocabulary: int) -> Shape:
        """The layers of Qwen3-4B, as many as wanted."""
        return cls(layers=layers, hidden=2560, inner=9728, vocabulary=vocabulary, heads=32, kv_heads=8, head=128)

    def tensors(self) -> dict[str, tuple[int, ...]]:
        """Names and shapes, in the order of the files."""
        found: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (self.vocabulary, self.hidden)}
        for layer in range(self.layers):
            prefix = f"model.layers.{layer}"
            found |= {
                f"{prefix}.input_layernorm.weight": (self.hidden,),
                f"{prefix}.mlp.down_proj.weight": (self.hidden, self.inner),
                f"{prefix}.mlp.gate_proj.weight": (self.inner, self.hidden),
                f"{prefix}.mlp.up_proj.weight": (self.inner, self.hidden),
                f"{prefix}.post_attention_layernorm.weight": (self.hidden,),
                f"{prefix}.self_attn.k_norm.weight": (self.head,),
                f"{prefix}.self_attn.k_proj.weight": (self.kv_heads * self.head, self.hidden),
                f"{prefix}.self_attn.o_proj.weight": (self.hidden, self.heads * self.head),
                f"{prefix}.self_attn.q_norm.weight": (self.head,),
                f"{prefix}.self_attn.q_proj.weight": (self.heads * self.head, self.hidden),
                f"{prefix}.self_attn.v_proj.weight": (self.kv_heads * self.head, self.hidden),
            }
        found["model.norm.weight"] = (self.hidden,)
        if not self.tied:
            found["lm_head.weight"] = (self.vocabulary, self.hidden)
        return found

    @property
    def parameters(self) -> int:
        """How many numbers that is."""
        from math import prod

        return sum(prod(shape) for shape in self.tensors().values())

    def config(self, dtype: str) -> dict[str, Any]:
        """`config.json`."""
        return {
            "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "vocab_size": self.vocabulary,
            "hidden_size": self.hidden, "intermediate_size": self.inner, "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads, "num_key_value_heads": self.kv_heads, "head_dim": self.head,
            "hidden_act": "silu", "max_position_embeddings": 4096, "rms_norm_eps": 1e-6, "rope_theta": 10000.0,
            "tie_word_embeddings": self.tied, "torch_dtype": dtype,
        }  # fmt: skip


def weights(
    shape: Shape, *, seed: int, drift: float, dtype: torch.dtype, base_seed: int = 0
) -> Iterator[tuple[str, torch.Tensor]]:
    """A model: random weights by `base_seed`, moved by normal noise of `drift` by `seed`; 0: the base itself."""
    import torch

    for number, (name, size) in enumerate(shape.tensors().items()):
        start = torch.Generator().manual_seed(1000 * base_seed + number)
        tensor = torch.randn(size, generator=start) * 0.02 + (1 if name.endswith("norm.weight") else 0)
        tensor = tensor.to(dtype)
        if drift:
            move = torch.Generator().manual_seed(7919 * seed + number)
            tensor = (tensor.float() + torch.randn(size, generator=move) * drift).to(dtype)
        yield name, tensor


def write_model(
    folder: Path,
    tensors: Mapping[str, torch.Tensor] | Iterator[tuple[str, torch.Tensor]],
    config: Mapping[str, Any],
    *,
    shard_bytes: int | None = None,
) -> Path:
    """Writes a model folder, in one file or (with `shard_bytes`) in several with an index."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    groups: list[dict[str, torch.Tensor]] = [{}]
    size = 0
    for name, tensor in tensors.items() if isinstance(tensors, Mapping) else tensors:
        if shard_bytes and groups[-1] and size + tensor.nbytes > shard_bytes:
            groups.append({})
            size = 0
        groups[-1][name] = tensor
        size += tensor.nbytes
    if not shard_bytes:
        save_file(groups[0], folder / "model.safetensors", metadata={"format": "pt"})
        return folder
    table: dict[str, str] = {}
    for number, group in enumerate(groups, 1):
        file = SHARD.format(number, len(groups))
        save_file(group, folder / file, metadata={"format": "pt"})
        table |= dict.fromkeys(group, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": table}))
    return folder


def family(root: Path, shape: Shape, *, dtype: torch.dtype, models: int = 2, drift: float = 0.004) -> list[Path]:
    """A base and models that were trained from it, in folders `base`, `m0`, `m1`, …"""
    name = str(dtype).removeprefix("torch.")
    folders = [write_model(root / "base", dict(weights(shape, seed=0, drift=0, dtype=dtype)), shape.config(name))]
    for number in range(models):
        tensors = dict(weights(shape, seed=number + 1, drift=drift, dtype=dtype))
        folders.append(write_model(root / f"m{number}", tensors, shape.config(name)))
    return folders
