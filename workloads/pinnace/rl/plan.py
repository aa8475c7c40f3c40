"""How much memory a training step needs on each device, and which settings fit. Arithmetic, no torch.

What is added up, in bytes on one device (P parameters, b bytes a number, N devices, t tokens on the device, d hidden,
i intermediate, q and k the widths of all query and all key heads, L layers, V words):

- weights b·P, gradients b·P, AdamW 12·P (float32 copy and two moments; 8·P where weights are float32): divided by N
  from ZeRO stage 3, 2 and 1 on. Offloaded, the optimizer is on the host.
- communication buckets of DeepSpeed's default size; under ZeRO-3 the gathered layer and embedding.
- activations: with gradient checkpointing each layer keeps its input, L·d a token, and one layer at a time is computed
  again and gone back through. That layer's peak is in its MLP, 6·i + 4·q + 4·k + c·d numbers a token (three tensors of
  width i and their gradients; c is 11 in bfloat16, whose norms run in float32, else 6.5), or in its attention, with
  8·q + 4·k + 18·d in bfloat16. Measured with torch's MemTracker on small Qwen3 models (tests/rl/test_plan.py).
- the head: 12 bytes a logit (three float32 tensors) for a chunk of logits, and the gradient of the head's weight.
- sequence parallelism (Ulysses) divides t, and keeps a second copy of queries, keys and values around its all-to-all.

Attention scores need no room with a flash kernel; with SDPA and packed samples a t by t mask does, and is counted when
asked for. A CUDA context and 6 % for fragmentation are added at the end.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal

BUCKET = 500_000_000  # numbers; DeepSpeed's reduce_bucket_size, of which two are in flight
CONTEXT_BYTES = 1_500_000_000
FRAGMENTATION = 0.06
_LOGIT_BYTES = 12


class UnknownModel(ValueError):
    """A config.json without what the arithmetic needs; the message names the field."""


@dataclass(frozen=True, kw_only=True)
class ModelShape:
    """The sizes of a dense decoder with gated MLP and grouped-query attention (Qwen3, Llama, Mistral)."""

    layers: int
    hidden: int
    intermediate: int
    vocabulary: int
    query_width: int
    key_width: int
    key_heads: int
    tied: bool

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> ModelShape:
        """From a Hugging Face `config.json`. Raises `UnknownModel`."""
        try:
            heads, key_heads = config["num_attention_heads"], config["num_key_value_heads"]
            width = config.get("head_dim") or config["hidden_size"] // heads
            return cls(
                layers=config["num_hidden_layers"],
                hidden=config["hidden_size"],
                intermediate=config["intermediate_size"],
                vocabulary=config["vocab_size"],
                query_width=heads * width,
                key_width=key_heads * width,
                key_heads=key_heads,
                tied=bool(config.get("tie_word_embeddings", False)),
            )
        except KeyError as error:
            raise UnknownModel(
                f"config.json has no {error}: the plan knows dense decoders such as Qwen3 only"
            ) from error

    @property
    def layer_parameters(self) -> int:
        attention = 2 * self.hidden * (self.query_width + self.key_width)
        return attention + 3 * self.hidden * self.intermediate + 2 * self.hidden

    @property
    def embedding_parameters(self) -> int:
        return self.vocabulary * self.hidden

    @property
    def parameters(self) -> int:
        """Without the norms of query and key heads, a few thousand."""
        return self.layers * self.layer_parameters + (2 - self.tied) * self.embedding_parameters + self.hidden


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What is chosen. `tokens` are those of a micro-batch over all its sequence-parallel ranks."""

    tokens: int
    devices: int = 1
    zero_stage: Literal[0, 1, 2, 3] = 2
    sequence_parallel: int = 1
    offload_optimizer: bool = False
    precision: Literal["bf16", "fp32"] = "bf16"
    head_chunk: int = 1024
    packed_mask: bool = False


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes on each device, by what they are for, and on the host for each device."""

    setting: Setting
    parts: dict[str, float]
    host: float

    @property
    def total(self) -> float:
        return sum(self.parts.values())


def activations(shape: ModelShape, setting: Setting) -> float:
    """Peak bytes of activations and their gradients on one device: in a layer, or in the head."""
    number = 2 if setting.precision == "bf16" else 4
    tokens = setting.tokens / setting.sequence_parallel
    kept = shape.layers * shape.hidden
    norms = 11 if setting.precision == "bf16" else 6.5
    mlp = 6 * shape.intermediate + 4 * shape.query_width + 4 * shape.key_width + norms * shape.hidden
    attention = 8 * shape.query_width + 4 * shape.key_width + 18 * shape.hidden if setting.precision == "bf16" else 0
    exchanged = 2 * (shape.query_width + 2 * shape.key_width) if setting.sequence_parallel > 1 else 0
    layer = tokens * number * (kept + max(mlp, attention + exchanged))
    if setting.packed_mask:
        layer += setting.tokens**2 * (1 + number)
    logits = min(setting.head_chunk, tokens) * shape.vocabulary * _LOGIT_BYTES
    head = tokens * number * (kept + 6 * shape.hidden) + logits + number * shape.embedding_parameters
    return float(max(layer, head))


def plan(shape: ModelShape, setting: Setting, *, device: Literal["cuda", "cpu"] = "cuda") -> MemoryPlan:
    """The memory of one training step; on the CPU without a CUDA context, buckets and fragmentation."""
    number = 2 if setting.precision == "bf16" else 4
    parameters, devices, stage = shape.parameters, setting.devices, setting.zero_stage
    optimizer = parameters * (12 if setting.precision == "bf16" else 8) / (devices if stage >= 1 else 1)
    parts = {
        "weights": number * parameters / (devices if stage == 3 else 1),
        "gradients": number * parameters / (devices if stage >= 2 else 1),
        "optimizer": 0.0 if setting.offload_optimizer else optimizer,
        "activations": activations(shape, setting),
    }
    if device == "cuda":
        buckets = 2.0 * min(BUCKET, parameters) * number if devices > 1 else 0.0
        gathered = number * 2.0 * (shape.layer_parameters + shape.embedding_parameters) if stage == 3 else 0.0
        parts["communication"] = buckets + gathered
        parts["overhead"] = CONTEXT_BYTES + FRAGMENTATION * sum(parts.values())
    return MemoryPlan(setting, parts, optimizer if setting.offload_optimizer else 0.0)


def candidates(shape: ModelShape, *, tokens: int, devices: int) -> Iterator[MemoryPlan]:
    """From the fastest to the most frugal: without offload first, then less sequence parallelism, then lower stages."""
    for offload, sequence, stage in product((False, True), (1, 2, 4, 8), (2, 3)):
        if devices % sequence == 0 and shape.key_heads % sequence == 0 and not (stage == 3 and devices == 1):
            yield plan(
                shape,
                Setting(
                    tokens=tokens,
                    devices=devices,
                    zero_stage=2 if stage == 2 else 3,
                    sequence_parallel=sequence,
                    offload_optimizer=offload,
                ),
            )


def first_that_fits(shape: ModelShape, *, tokens: int, devices: int, device_bytes: float) -> MemoryPlan | None:
    """The fastest setting whose total is within `device_bytes`; None when nothing is."""
    return next((one for one in candidates(shape, tokens=tokens, devices=devices) if one.total <= device_bytes), None)
