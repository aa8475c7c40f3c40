"""Log-probs and gradients do not depend on packing, chunks, micro-batches, or the engine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pinnace.rl.engine.export import export
from pinnace.rl.engine.policy import Policy, chunked_logprobs
from pinnace.rl.engine.protocol import NotFinite, OptimizerParameters
from pinnace.rl.engine.torch_engine import TorchEngine
from pinnace.rl.loss import LOSSES
from pinnace.rl.types import Sample
from pinnace.tiny.model import write_tiny_model
from torch import nn

from e2e.apiserver import free_port

from .samples import random_samples

STEP = OptimizerParameters(learning_rate=1e-2)


@pytest.mark.parametrize("chunk", [1, 3, 7, 100])
def test_the_chunked_head_equals_the_full_one(chunk: int) -> None:
    torch.manual_seed(0)
    hidden = torch.randn(10, 8, dtype=torch.float64, requires_grad=True)
    head, targets = nn.Linear(8, 31, bias=False, dtype=torch.float64), torch.randint(31, (10,))

    def gradients(logprob: torch.Tensor, entropy: torch.Tensor) -> list[torch.Tensor]:
        hidden.grad = head.weight.grad = None
        (logprob * torch.arange(10)).sum().backward()
        assert hidden.grad is not None
        assert head.weight.grad is not None
        return [logprob.detach(), entropy.detach(), hidden.grad.clone(), head.weight.grad.clone()]

    full = torch.log_softmax(head(hidden).float() / 0.7, -1)
    expected = gradients(
        full.gather(-1, targets[:, None]).squeeze(-1), torch.distributions.Categorical(logits=full).entropy()
    )
    got = gradients(*chunked_logprobs(hidden, head, targets, temperature=0.7, chunk=chunk))
    for one, other in zip(got, expected, strict=True):
        assert torch.allclose(one.double(), other.double(), atol=1e-5)


def test_the_chunked_head_of_nothing_is_nothing() -> None:
    head = nn.Linear(8, 31, bias=False)
    logprob, entropy = chunked_logprobs(
        torch.randn(0, 8), head, torch.zeros(0, dtype=torch.long), temperature=1, chunk=4
    )
    assert logprob.shape == entropy.shape == (0,)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("engine") / "tiny"
    write_tiny_model(made)
    return made


def load(directory: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)


def flat(rows: list[tuple[float, ...]]) -> list[float]:
    return [value for row in rows for value in row]


def gradients(model: nn.Module) -> torch.Tensor:
    return torch.cat([value.grad.flatten() for value in model.parameters() if value.grad is not None])


@pytest.mark.slow
def test_packed_log_probs_equal_those_of_each_sample_alone(directory: Path) -> None:
    model, samples = load(directory), random_samples(9)
    packed = TorchEngine(Policy(model), token_budget=10_000).logprobs(samples)
    for sample, row in zip(samples, packed, strict=True):
        with torch.no_grad():
            logs = torch.log_softmax(model(torch.tensor([sample.ids])).logits[0], -1)
        for at, mask in enumerate(sample.loss_mask):
            assert row[at] == pytest.approx(logs[at - 1, sample.ids[at]].item() if mask else 0.0, abs=2e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", LOSSES)
def test_neither_micro_batches_nor_several_calls_change_the_gradient(directory: Path, name: str) -> None:
    samples = random_samples(7, longest=30)
    prox = [tuple(-7.2 if on else 0.0 for on in sample.loss_mask) for sample in samples]

    def run(budget: int, *parts: slice) -> tuple[torch.Tensor, list[tuple[float, ...]], dict[str, float]]:
        model = load(directory)
        engine = TorchEngine(Policy(model), token_budget=budget)
        made = [engine.accumulate(samples[part], LOSSES[name], prox=prox[part]) for part in parts]
        rows = [row for one in made for row in one.logprobs]
        return gradients(model), rows, {key: sum(one.sums[key] for one in made) for key in made[0].sums}

    whole, rows, sums = run(10_000, slice(None))
    assert whole.abs().sum() > 0
    for other, other_rows, other_sums in (run(30, slice(None)), run(60, slice(0, 3), slice(3, None))):
        assert torch.allclose(whole, other, atol=1e-6)
        assert flat(rows) == pytest.approx(flat(other_rows), abs=2e-5)
        assert sums == pytest.approx(other_sums, rel=1e-4)


@pytest.mark.slow
def test_a_step_learns_and_says_how_far_it_went(directory: Path) -> None:
    model = load(directory)
    engine = TorchEngine(Policy(model), token_budget=500)
    samples = [replace(sample, advantages=tuple(float(on) for on in sample.loss_mask)) for sample in random_samples(4)]
    start = engine.logprobs(samples)
    samples = [replace(sample, behaviour_logprobs=row) for sample, row in zip(samples, start, strict=True)]
    made = engine.accumulate(samples, LOSSES["grpo"])
    assert made.loss == pytest.approx(-1, abs=1e-5)  # ratio 1, advantage 1, weights sum to 1
    assert made.sums["tokens"] == sum(sample.trained_tokens for sample in samples)
    assert engine.apply(STEP) > 0
    assert sum(flat(engine.logprobs(samples))) > sum(flat(start))


@pytest.mark.slow
def test_a_loss_that_is_not_finite_stops_and_names_the_trajectories(directory: Path) -> None:
    model = load(directory)
    engine = TorchEngine(Policy(model), token_budget=500)
    bad = [replace(sample, advantages=(float("nan"),) * len(sample.ids)) for sample in random_samples(1)]
    with pytest.raises(NotFinite, match="trajectories 0"):
        engine.accumulate(bad, LOSSES["grpo"])


@pytest.fixture(scope="module")
def zero(directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """What two DeepSpeed ranks made of the same batch at every ZeRO stage (tests/rl/deepspeed_worker.py)."""
    out = tmp_path_factory.mktemp("zero")
    port = free_port()
    ranks = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.rl.deepspeed_worker", str(directory), str(out / f"{rank}.json")],
            env={
                **os.environ, "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu",
            },
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    outputs = [rank.communicate()[0] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0], outputs[0][-3000:]
    first, second = (json.loads((out / f"{rank}.json").read_text()) for rank in range(2))
    assert first == second  # every rank gets the same answer
    yield {**first, "folder": out}


def expected(directory: Path) -> tuple[list[tuple[float, ...]], dict[str, Any], list[float], list[tuple[float, ...]]]:
    model, samples = load(directory), batch()
    engine = TorchEngine(Policy(model), token_budget=64)
    norms = []
    for _ in range(2):
        first = engine.accumulate(samples[:3], LOSSES["grpo"])
        second = engine.accumulate(samples[3:], LOSSES["grpo"])
        norms.append(engine.apply(STEP))
    return [*first.logprobs, *second.logprobs], {"loss": first.loss + second.loss}, norms, engine.logprobs(samples)


def batch() -> list[Sample]:
    return random_samples(8, seed=3, longest=40)


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["0", "1", "2", "3"])
def test_every_zero_stage_on_two_ranks_equals_plain_torch(directory: Path, zero: dict[str, Any], stage: str) -> None:
    logprobs, loss, norms, after = expected(directory)
    assert flat(zero[stage]["logprobs"]) == pytest.approx(flat(logprobs), abs=1e-4)
    assert zero[stage]["loss"] == pytest.approx(loss["loss"], abs=1e-5)
    assert zero[stage]["norms"] == pytest.approx(norms, rel=1e-3)
    assert flat(zero[stage]["after"]) == pytest.approx(flat(after), abs=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["0", "1", "2", "3"])
def test_every_zero_stage_goes_on_from_its_checkpoint_as_if_it_had_not_ended(zero: dict[str, Any], stage: str) -> None:
    assert flat(zero[stage]["resumed"]) == pytest.approx(flat(zero[stage]["went_on"]), abs=1e-6)
    assert flat(zero[stage]["resumed"]) != flat(zero[stage]["after"])


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["0", "3"])
def test_what_zero_exports_is_what_it_trained(zero: dict[str, Any], stage: str) -> None:
    exported = TorchEngine(Policy(load(zero["folder"] / f"model-{stage}")), token_budget=64)
    assert flat(exported.logprobs(batch())) == pytest.approx(flat(zero[stage]["after"]), abs=1e-5)
    assert exported.next_logprobs((5, 6, 7)) == pytest.approx(zero[stage]["next"], abs=1e-5)


@pytest.mark.slow
def test_a_large_model_is_exported_in_shards_that_transformers_loads(
    directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pinnace.rl.engine.export.SHARD_BYTES", 300_000)
    engine = TorchEngine(Policy(load(directory)), token_budget=500)
    engine.accumulate(random_samples(2), LOSSES["grpo"])
    engine.apply(STEP)
    export(engine, directory, tmp_path)
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 2
    assert {path.name for path in directory.iterdir()} - {"model.safetensors"} <= {p.name for p in tmp_path.iterdir()}
    again = TorchEngine(Policy(load(tmp_path)), token_budget=500)
    assert again.logprobs(random_samples(3)) == engine.logprobs(random_samples(3))
