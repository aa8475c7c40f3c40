"""One of the ranks that test_engine.py starts: the same two steps at every ZeRO stage."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import deepspeed
import torch
import torch.distributed as dist
from pinnace.rl.engine.deepspeed_engine import DeepSpeedEngine
from pinnace.rl.engine.export import export
from pinnace.rl.engine.policy import Policy
from pinnace.rl.engine.protocol import OptimizerParameters
from pinnace.rl.loss import LOSSES
from transformers import AutoModelForCausalLM

from .samples import random_samples

STEP = OptimizerParameters(learning_rate=1e-2)


def started(directory: Path, stage: Any) -> DeepSpeedEngine:
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
    return DeepSpeedEngine(Policy(model), token_budget=64, zero_stage=stage)


def main(directory: Path, out: Path) -> None:
    deepspeed.init_distributed(dist_backend="gloo")
    samples = random_samples(8, seed=3, longest=40)
    results = {}
    for stage in (0, 1, 2, 3):
        engine = started(directory, stage)
        norms = []
        for _ in range(2):
            first = engine.accumulate(samples[:3], LOSSES["grpo"])
            second = engine.accumulate(samples[3:], LOSSES["grpo"])
            norms.append(engine.apply(STEP))
        results[stage] = {
            "logprobs": first.logprobs + second.logprobs,
            "loss": first.loss + second.loss,
            "norms": norms,
            "after": engine.logprobs(samples),
            "next": engine.next_logprobs((5, 6, 7)),
            "weights": {name: float(value.double().sum()) for name, value in engine.weights()},
        }
        exported, saved = out.parent / f"model-{stage}", out.parent / f"state-{stage}"
        if dist.get_rank() == 0:
            exported.mkdir()
        export(engine, directory, exported if dist.get_rank() == 0 else None)
        engine.save(saved)
        dist.barrier()
        resumed = started(directory, stage)
        resumed.load(saved)
        for name, one in {"went_on": engine, "resumed": resumed}.items():
            one.accumulate(samples, LOSSES["grpo"])
            one.apply(STEP)
            results[stage][name] = one.logprobs(samples)
    out.write_text(json.dumps(results))


main(Path(sys.argv[1]), Path(sys.argv[2]))
