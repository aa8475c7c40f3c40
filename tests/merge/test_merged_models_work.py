"""What comes out is a model: it loads, generates, and is what PEFT or alignment by hand would have made."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from pinnace.merge.budget import resident_bytes
from pinnace.merge.buffers import let_go
from pinnace.tiny.model import write_tiny_model
from pinnace_operator.api.mergemethods import MergeMethod
from safetensors.torch import save_file

from e2e.merging import Shape, family, write_model
from tests.merge.merges import loaded, merged


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three tiny Qwen3 with one tokenizer."""
    root = tmp_path_factory.mktemp("tiny")
    for seed in range(3):
        write_tiny_model(root / f"m{seed}", seed=seed)
    return [root / f"m{seed}" for seed in range(3)]


def config(folders: list[Path], **more: Any) -> dict[str, Any]:
    models = [{"model": str(folder), "parameters": {"weight": 0.5, "density": 0.6}} for folder in folders[1:]]
    return {"merge_method": "dare_ties", "base_model": str(folders[0]), "models": models} | more


@pytest.mark.slow
def test_a_merged_model_generates(tiny: list[Path], tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    out = merged(config(tiny, out_dtype="bfloat16"), tmp_path / "out")
    model = AutoModelForCausalLM.from_pretrained(out)
    tokenizer = AutoTokenizer.from_pretrained(out)
    assert model.dtype == torch.bfloat16
    answer = model.generate(**tokenizer("What is the sum", return_tensors="pt"), max_new_tokens=4, min_new_tokens=4)
    assert answer.shape[1] > 4
    weights = loaded(out)
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in weights.items())


@pytest.mark.slow
def test_an_adapter_is_merged_as_peft_does(tiny: list[Path], tmp_path: Path) -> None:
    from peft import LoraConfig, PeftModel, get_peft_model
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(tiny[0])
    adapted = get_peft_model(
        base, LoraConfig(r=4, lora_alpha=12, target_modules="all-linear", rank_pattern={"q_proj": 2})
    )
    for name, parameter in adapted.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.02)
    adapted.save_pretrained(tmp_path / "adapter")
    model = AutoModelForCausalLM.from_pretrained(tiny[0])
    theirs = PeftModel.from_pretrained(model, tmp_path / "adapter").merge_and_unload().state_dict()
    for source in (f"{tiny[0]}+{tmp_path / 'adapter'}", str(tmp_path / "adapter")):
        out = merged(
            {
                "merge_method": "task_arithmetic",
                "base_model": str(tiny[0]),
                "models": [{"model": source, "parameters": {"weight": 1.0}}],
            },
            tmp_path / f"out{len(source)}",
        )
        ours = loaded(out)
        assert max(float((ours[name] - theirs[name]).abs().max()) for name in ours) < 1e-6
        assert not torch.equal(
            ours["model.layers.0.mlp.up_proj.weight"], loaded(tiny[0])["model.layers.0.mlp.up_proj.weight"]
        )


def test_a_larger_vocabulary_is_aligned_by_token(tmp_path: Path) -> None:
    """As mergekit's `tokenizer: {source: base}`: rows go by token; a token that a model lacks has the base's row."""

    def model(name: str, tokens: list[str], seed: int) -> Path:
        shape = Shape(layers=1, vocabulary=len(tokens))
        dice = torch.Generator().manual_seed(seed)
        tensors = {key: torch.randn(size, generator=dice) for key, size in shape.tensors().items()}
        folder = write_model(tmp_path / name, tensors, shape.config("float32"))
        vocab = {token: number for number, token in enumerate(tokens)}
        (folder / "tokenizer.json").write_text(json.dumps({"model": {"type": "BPE", "vocab": vocab}}))
        return folder

    base, other = model("base", ["a", "b", "c", "d"], 1), model("other", ["a", "x", "c", "b", "y"], 2)
    out = merged(
        {
            "merge_method": "task_arithmetic",
            "base_model": str(base),
            "models": [{"model": str(other), "parameters": {"weight": 1.0}}],
            "tokenizer": {"source": "base"},
        },
        tmp_path / "out",
    )
    name = "model.embed_tokens.weight"
    ours, theirs = loaded(base)[name], loaded(other)[name]
    expected = torch.stack([theirs[0], theirs[3], theirs[2], ours[3]])
    assert torch.allclose(loaded(out)[name], expected, atol=1e-6)


def test_sharded_inputs_and_outputs_are_the_same_as_single_ones(tiny: list[Path], tmp_path: Path) -> None:
    sharded = [
        write_model(
            tmp_path / folder.name,
            loaded(folder),
            json.loads((folder / "config.json").read_text()),
            shard_bytes=300_000,
        )
        for folder in tiny
    ]
    for folder, source in zip(sharded, tiny, strict=True):
        shutil.copy(source / "tokenizer.json", folder)
    one = loaded(merged(config(tiny), tmp_path / "one"))
    many = merged(config(sharded), tmp_path / "many", shard_size="400Ki")
    assert len(list(many.glob("model-*.safetensors"))) > 2
    assert (many / "model.safetensors.index.json").exists()
    two = loaded(many)
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_buffers_that_are_no_floats_are_copied(tmp_path: Path, families: Any) -> None:
    folders = [shutil.copytree(folder, tmp_path / folder.name) for folder in families()[:3]]
    for folder in folders:
        save_file(loaded(folder) | {"steps": torch.tensor([7, 8])}, folder / "model.safetensors")
    assert loaded(merged(config(folders), tmp_path / "out"))["steps"].tolist() == [7, 8]


def test_trimming_over_the_whole_model(families: Any, tmp_path: Path) -> None:
    """`trim: Model`: the changes that stay are the largest of all tensors together."""
    base, model = families()[:2]
    document = config([base, model], merge_method="ties", out_dtype="float32")
    document["models"][0]["parameters"] = {"weight": 1.0, "density": 0.1}
    method = MergeMethod.from_manifest({"ties": {"trim": "Model"}})
    out = loaded(merged(document, tmp_path / "out", method=method))
    before = loaded(base)
    moves = {name: out[name] - before[name].float() for name in out}
    deltas = torch.cat([(loaded(model)[name].float() - before[name].float()).flatten() for name in out])
    kept = int(0.1 * len(deltas))
    border = deltas.abs().sort(descending=True).values[kept - 1]
    assert sum(int((move != 0).sum()) for move in moves.values()) == kept
    assert min(float(move.abs()[move != 0].min()) for move in moves.values() if (move != 0).any()) >= border * 0.999


@pytest.mark.slow
def test_merges_one_after_the_other_take_no_more_memory_than_one(tmp_path: Path) -> None:
    """A sweep makes many in one process: what a merge leaves behind would be missing for the next."""
    shape = Shape(layers=1, hidden=640, inner=1400, vocabulary=20011, heads=10, kv_heads=5, head=64)
    base, model = family(tmp_path, shape, dtype=torch.bfloat16, models=1)
    models = [{"model": str(model), "parameters": {"weight": 1, "density": 0.5}}]
    config = {"merge_method": "ties", "base_model": str(base), "models": models}
    held = []
    for number in range(4):
        merged(config, tmp_path / str(number))
        let_go()
        held.append(resident_bytes())
    assert max(held[1:]) - held[0] < 64 << 20
