"""The spread over processes, ZeRO stages and micro-batches must not change what is learned.

Tolerances: fp32 sums in another order differ by a few units in the last place; after six steps losses (2.9…7.3) stay
within 1e-4.
"""

from __future__ import annotations

import json
import shutil
from typing import Any

import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

pytestmark = pytest.mark.slow
CLOSE = {"abs": 1e-4}
LORA = {"rank": 8, "alpha": 16}


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("zero-0", {"deepspeed": {"zeroStage": 0}}),
        ("zero-1", {"deepspeed": {"zeroStage": 1}}),
        ("zero-3", {"deepspeed": {"zeroStage": 3}}),
        ("optimizer-offload", {"deepspeed": {"offload": "Optimizer"}}),
        ("parameter-offload", {"deepspeed": {"zeroStage": 3, "offload": "OptimizerAndParameters"}}),
        ("accumulation", {"training": {"microBatchSize": 2}}),
        ("gradient-checkpointing", {"training": {"gradientCheckpointing": True}}),
        ("two-processes", {"processes": 2, "training": {"microBatchSize": 4}}),
        ("two-processes-zero-3", {"processes": 2, "training": {"microBatchSize": 4}, "deepspeed": {"zeroStage": 3}}),
        ("sequence-parallel", {"processes": 2, "deepspeed": {"zeroStage": 3, "sequenceParallel": 2}}),
    ],
)
def test_losses_equal_those_of_one_plain_process(trainer: Any, plain: Any, name: str, settings: dict[str, Any]) -> None:
    run = trainer.run(name, **settings)
    assert run.losses == pytest.approx(plain.losses, **CLOSE)
    ours, theirs = (load_file(each.root / "output" / "model.safetensors") for each in (run, plain))
    assert ours.keys() == theirs.keys()
    assert all(torch.allclose(ours[key], theirs[key], atol=2e-3) for key in ours)


def test_losses_equal_those_of_a_plain_torch_loop(trainer: Any, plain: Any) -> None:
    """The oracle: AdamW and a token mean over the batch, written out; the batches are the trainer's own order."""
    rows = Dataset.from_file(str(trainer.prepared / "data" / "train.arrow"))
    generator = torch.Generator()
    generator.manual_seed(42)
    order = torch.randperm(len(rows), generator=generator).tolist()
    model = AutoModelForCausalLM.from_pretrained(trainer.prepared / "model", dtype=torch.float32)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0)
    # One warm-up step (3 % of 6, rounded up), then a cosine to zero over the other five.
    rates = [0.0, *(0.5 * (1 + torch.cos(torch.tensor(torch.pi * step / 5)).item()) for step in range(5))]
    losses = []
    for step, rate in enumerate(rates):
        batch = [rows[index] for index in order[step * 8 : step * 8 + 8]]
        longest = max(len(row["input_ids"]) for row in batch)
        ids = torch.tensor([row["input_ids"] + [0] * (longest - len(row["input_ids"])) for row in batch])
        labels = torch.tensor([row["labels"] + [-100] * (longest - len(row["labels"])) for row in batch])
        logits = model(input_ids=ids).logits[:, :-1].reshape(-1, 1024)
        loss = torch.nn.functional.cross_entropy(logits, labels[:, 1:].reshape(-1), ignore_index=-100)
        losses.append(loss.item())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = 3e-3 * rate
        optimizer.step()
        optimizer.zero_grad()
    assert plain.losses == pytest.approx(losses, **CLOSE)


def test_packed_samples_do_not_see_each_other(trainer: Any) -> None:
    """Packed three to a row, all samples in one step: the loss of the untrained model must equal the unpacked one's."""
    everything = {"maxSteps": 1, "globalBatchSize": 96, "microBatchSize": 32}
    unpacked = trainer.run("unpacked", training=everything)
    packed = trainer.run("packed", training=everything | {"packing": True, "globalBatchSize": 32, "microBatchSize": 8})
    assert packed.result["history"][0]["num_tokens"] == unpacked.result["history"][0]["num_tokens"]
    assert packed.losses[0] == pytest.approx(unpacked.losses[0], **CLOSE)


def test_bf16_learns_like_fp32(trainer: Any, plain: Any) -> None:
    run = trainer.run("bf16", training={"precision": "bf16"})
    assert run.losses == pytest.approx(plain.losses, abs=0.1)
    assert {tensor.dtype for tensor in load_file(run.root / "output" / "model.safetensors").values()} == {
        torch.bfloat16
    }


@pytest.mark.parametrize("settings", [{}, {"deepspeed": {"zeroStage": 3}, "training": {"gradientCheckpointing": True}}])
def test_lora_exports_the_merged_model_and_the_adapter(trainer: Any, settings: dict[str, Any]) -> None:
    run = trainer.run(f"lora-{len(settings)}", lora=LORA, **settings)
    assert run.losses[-1] < run.losses[0] - 0.5
    output = run.root / "output"
    from peft import PeftModel

    base = AutoModelForCausalLM.from_pretrained(trainer.prepared / "model", dtype=torch.float32)
    reference = PeftModel.from_pretrained(base, output / "adapter").merge_and_unload()
    merged = AutoModelForCausalLM.from_pretrained(output, dtype=torch.float32)
    ids = torch.arange(20, 60)[None]
    assert torch.allclose(merged(ids).logits, reference(ids).logits, atol=1e-4)


@pytest.mark.parametrize("name", ["plain", "zero-3-export"])
def test_every_checkpoint_and_the_output_load_in_transformers_with_tied_embeddings(
    trainer: Any, plain: Any, name: str
) -> None:
    run = (
        plain
        if name == "plain"
        else trainer.run(name, processes=2, deepspeed={"zeroStage": 3}, training={"microBatchSize": 4})
    )
    for folder in (run.root / "output", *(run.root / "work").glob("staged-*/model")):
        weights = load_file(folder / "model.safetensors")
        assert "lm_head.weight" not in weights
        assert weights["model.embed_tokens.weight"].shape == (1024, 128)
        model = AutoModelForCausalLM.from_pretrained(folder)
        assert model.lm_head.weight.data_ptr() == model.model.embed_tokens.weight.data_ptr()
        assert json.loads((folder / "generation_config.json").read_text())["eos_token_id"] == [2, 0]
        text = AutoTokenizer.from_pretrained(folder).apply_chat_template(
            [{"role": "user", "content": "1+2"}], tokenize=False
        )
        assert text == "<|im_start|>user\n1+2<|im_end|>\n"


@pytest.mark.parametrize("step", [3, 6])
def test_a_resumed_run_ends_with_the_same_weights_also_from_its_last_step(trainer: Any, plain: Any, step: int) -> None:
    root = trainer.scratch(f"resumed-from-{step}")
    shutil.copytree(plain.root / "work" / f"staged-{step}" / "state", root / "resume")
    run = trainer.run("resumed", root=root, resumed_from=step)
    assert run.losses == plain.losses[step:]
    ours, theirs = (load_file(each.root / "output" / "model.safetensors") for each in (run, plain))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_two_hundred_steps_teach_the_task(trainer: Any) -> None:
    """Before: nothing right. After: well-formed calls with the right arguments, results read, answers given."""
    from pinnace.tiny.score import score

    before = score(trainer.prepared / "model", samples=50)
    run = trainer.run("learned", training={"maxSteps": 200, "globalBatchSize": 16, "microBatchSize": 16}, many=3200)
    after = score(run.root / "output", samples=50)
    assert before.right_answer == before.right_call == 0.0
    assert after.right_call >= 0.8
    assert after.right_answer >= 0.7
