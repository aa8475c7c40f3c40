"""The plan's arithmetic against a model's real parameters and torch's own count of allocations."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
from pinnace.rl.cli import app
from pinnace.rl.plan import ModelShape, Setting, UnknownModel, activations, first_that_fits, plan
from pinnace.tiny.model import config, write_tiny_model
from typer.testing import CliRunner

QWEN3_4B = {
    "hidden_size": 2560, "intermediate_size": 9728, "num_hidden_layers": 36, "vocab_size": 151936,
    "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128, "tie_word_embeddings": True,
}  # fmt: skip


def test_parameters_are_counted_as_the_model_has_them(tmp_path: Path) -> None:
    assert ModelShape.of(config()).parameters == pytest.approx(write_tiny_model(tmp_path), rel=1e-3)
    assert ModelShape.of(QWEN3_4B).parameters == pytest.approx(4_022_468_096, rel=1e-5)


def test_128k_tokens_of_a_4b_model() -> None:
    """One device needs the optimizer on the host, two share the sequence, eight need neither."""
    shape = ModelShape.of(QWEN3_4B)
    one, two, eight = (first_that_fits(shape, tokens=131_072, devices=n, device_bytes=80e9) for n in (1, 2, 8))
    assert one is not None
    assert one.setting.offload_optimizer
    assert two is not None
    assert (two.setting.offload_optimizer, two.setting.sequence_parallel) == (False, 2)
    assert eight is not None
    assert (eight.setting.offload_optimizer, eight.setting.sequence_parallel) == (False, 1)


def test_what_cannot_fit_is_said_so() -> None:
    assert first_that_fits(ModelShape.of(QWEN3_4B), tokens=1_000_000, devices=1, device_bytes=80e9) is None


@pytest.mark.parametrize("field", ["zero_stage", "sequence_parallel", "offload_optimizer"])
def test_every_saving_saves(field: str) -> None:
    shape, setting = ModelShape.of(QWEN3_4B), Setting(tokens=131_072, devices=8, zero_stage=2)
    better: dict[str, Any] = {"zero_stage": 3, "sequence_parallel": 4, "offload_optimizer": True}
    assert plan(shape, replace(setting, **{field: better[field]})).total < plan(shape, setting).total


def test_a_packed_mask_is_why_long_samples_need_a_flash_kernel() -> None:
    shape, setting = ModelShape.of(QWEN3_4B), Setting(tokens=131_072)
    extra = plan(shape, replace(setting, packed_mask=True)).total - plan(shape, setting).total
    assert extra > 131_072**2 * 3


def test_another_kind_of_model_is_refused() -> None:
    with pytest.raises(UnknownModel, match="num_key_value_heads"):
        ModelShape.of({"num_attention_heads": 4})


def test_the_command_says_what_fits(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(QWEN3_4B))
    result = CliRunner().invoke(
        app, ["plan", str(tmp_path), "--devices", "1", "--devices", "8"], env={"COLUMNS": "200"}
    )
    assert result.exit_code == 0, result.output
    assert "4.02B parameters" in result.output
    assert "optimizer offloaded" in result.output


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(
    ("tokens", "chunk", "sizes"),
    [
        (2048, 64, {"hidden_size": 96, "intermediate_size": 320, "num_hidden_layers": 3, "vocab_size": 1000}),
        (1024, 128, {"hidden_size": 128, "intermediate_size": 512, "num_hidden_layers": 6, "vocab_size": 2048}),
        (512, 256, {"hidden_size": 128, "intermediate_size": 384, "num_hidden_layers": 2, "vocab_size": 16384}),
    ],
)
def test_the_plan_is_within_15_percent_of_what_torch_allocates(
    precision: Literal["fp32", "bf16"], tokens: int, chunk: int, sizes: dict[str, int]
) -> None:
    """Weights, gradients and activations of one forward and backward pass: the highest sum at any moment."""
    import torch
    from pinnace.rl.engine.policy import Policy
    from pinnace.rl.engine.row import Row
    from torch.distributed._tools.mem_tracker import MemTracker
    from transformers import AutoConfig, AutoModelForCausalLM

    shape = {**sizes, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32, "tie_word_embeddings": True}
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("qwen3", **shape), dtype=dtype)
    policy = Policy(model, chunk=chunk)
    ids = torch.zeros(1, tokens, dtype=torch.long)
    row = Row(ids, torch.arange(tokens)[None], torch.arange(1, tokens), [tokens - 1])
    policy(row)[0].sum().backward()  # gradients exist from here on, as in every micro-batch but the first
    tracker = MemTracker()
    tracker.track_external(model)
    with tracker:
        policy(row)[0].sum().backward()
    (peak,) = (
        sum(v for k, v in kinds.items() if str(k) != "Total") for kinds in tracker.get_tracker_snapshot("peak").values()
    )
    setting = Setting(tokens=tokens, precision=precision, head_chunk=chunk)
    made = plan(ModelShape.of(shape), setting, device="cpu")
    expected = made.total - made.parts["optimizer"]
    assert expected == pytest.approx(peak, rel=0.15)
    assert activations(ModelShape.of(shape), setting) > expected / 2  # or the test would only check the weights
