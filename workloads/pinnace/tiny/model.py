"""A Qwen3 of half a million parameters in the exact layout of a Hugging Face model folder, made without torch.

Everything that a real Qwen3 has is here (tied embeddings, grouped-query attention, query/key norms, special tokens,
chat template, generation config), so that a 4B model differs only in `spec.model`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from pinnace.chat.template import ChatTemplate

from .task import arithmetic_tools

CHAT_TEMPLATE = Path(__file__).with_name("chat_template.jinja")
VOCABULARY = 1024
_SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
# As in Qwen3 these are single tokens but not "special": decoding keeps them for the tool and reasoning parsers.
_MARKERS = ("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<think>", "</think>")
_PROSE = """The quick brown fox jumps over the lazy dog. A pinnace is a small boat that a ship sends ahead to scout.
You are a helpful assistant. Answer the question with the tools that you have. What is the sum of these numbers?
{"type": "function", "function": {"name": "search", "description": "Searches the web.", "parameters": {}}}
Let me think about this step by step. First I search, then I read the page, then I answer the user."""


def config(*, layers: int = 2, hidden: int = 128) -> dict[str, Any]:
    """`config.json` of the tiny Qwen3."""
    return {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "vocab_size": VOCABULARY,
        "hidden_size": hidden,
        "intermediate_size": 2 * hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 32,
        "hidden_act": "silu",
        "max_position_embeddings": 4096,
        "max_window_layers": layers,
        "initializer_range": 0.1,  # large for its width: copying digits is learned in 150 steps instead of 500
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "rope_scaling": None,
        "attention_bias": False,
        "attention_dropout": 0.0,
        "use_sliding_window": False,
        "sliding_window": None,
        "tie_word_embeddings": True,
        "use_cache": True,
        "bos_token_id": 0,
        "eos_token_id": 2,
        "pad_token_id": 0,
        "torch_dtype": "float32",
        "dtype": "float32",
    }


def write_tiny_model(directory: Path, *, seed: int = 0) -> int:
    """Writes the model folder (about 2 MB) and returns the number of parameters. Same seed, same bytes."""
    directory.mkdir(parents=True, exist_ok=True)
    settings = config()
    tokenizer = _train_tokenizer()
    tokenizer.save(str(directory / "tokenizer.json"))
    weights = dict(_weights(settings, np.random.default_rng(seed)))
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    documents = {
        "config.json": settings,
        "generation_config.json": {"bos_token_id": 0, "eos_token_id": [2, 0], "pad_token_id": 0},
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "add_bos_token": False,
            "add_prefix_space": False,
            "bos_token": None,
            "eos_token": "<|im_end|>",
            "pad_token": "<|endoftext|>",
            "unk_token": None,
            "clean_up_tokenization_spaces": False,
            "model_max_length": settings["max_position_embeddings"],
        },
    }
    for name, document in documents.items():
        (directory / name).write_text(json.dumps(document, indent=2) + "\n")
    (directory / "chat_template.jinja").write_text(CHAT_TEMPLATE.read_text())
    return sum(int(weight.size) for weight in weights.values())


def _train_tokenizer() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    # Digits stand alone, as in Qwen's pattern: copying a number is then copying its digits.
    words = (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
        r"|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(words), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[*_SPECIAL, *_MARKERS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_corpus(), trainer)
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in _SPECIAL])
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in _MARKERS])
    return tokenizer


def _corpus() -> Iterator[str]:
    template = ChatTemplate(CHAT_TEMPLATE.read_text())
    yield from [_PROSE] * 3
    for record in arithmetic_tools(32, seed=0):
        yield template.render(record["messages"], tools=record["tools"])


def _weights(settings: dict[str, Any], dice: np.random.Generator) -> Iterator[tuple[str, np.ndarray[Any, Any]]]:
    hidden, inner, head = settings["hidden_size"], settings["intermediate_size"], settings["head_dim"]
    queries, keys = settings["num_attention_heads"] * head, settings["num_key_value_heads"] * head

    def random(*shape: int) -> np.ndarray[Any, Any]:
        return np.asarray(dice.standard_normal(shape) * settings["initializer_range"], dtype=np.float32)

    yield "model.embed_tokens.weight", random(settings["vocab_size"], hidden)
    for layer in range(settings["num_hidden_layers"]):
        prefix = f"model.layers.{layer}"
        yield f"{prefix}.input_layernorm.weight", np.ones(hidden, np.float32)
        yield f"{prefix}.post_attention_layernorm.weight", np.ones(hidden, np.float32)
        yield f"{prefix}.self_attn.q_norm.weight", np.ones(head, np.float32)
        yield f"{prefix}.self_attn.k_norm.weight", np.ones(head, np.float32)
        yield f"{prefix}.self_attn.q_proj.weight", random(queries, hidden)
        yield f"{prefix}.self_attn.k_proj.weight", random(keys, hidden)
        yield f"{prefix}.self_attn.v_proj.weight", random(keys, hidden)
        yield f"{prefix}.self_attn.o_proj.weight", random(hidden, queries)
        yield f"{prefix}.mlp.gate_proj.weight", random(inner, hidden)
        yield f"{prefix}.mlp.up_proj.weight", random(inner, hidden)
        yield f"{prefix}.mlp.down_proj.weight", random(hidden, inner)
    yield "model.norm.weight", np.ones(hidden, np.float32)
