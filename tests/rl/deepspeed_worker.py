"""One of the ranks that test_engine.py starts: the same two steps at every ZeRO stage."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import deepspeed
import torch
from pinnace.rl.engine.deepspeed_engine import DeepSpeedEngine
from pinnace.rl.engine.policy import Policy
from pinnace.rl.engine.protocol import OptimizerParameters
from pinnace.rl.loss import LOSSES
from transformers import AutoModelForCausalLM

from .samples import random_samples


def main(directory: Path, out: Path) -> None:
    deepspeed.init_distributed(dist_backend="gloo")
    samples = random_samples(8, seed=3, longest=40)
    results = {}
    for stage in (0, 1, 2, 3):
        model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
        engine = DeepSpeedEngine(Policy(model), token_budget=64, zero_stage=stage)
        norms = []
        for _ in range(2):
            first = engine.accumulate(samples[:3], LOSSES["grpo"])
            second = engine.accumulate(samples[3:], LOSSES["grpo"])
            norms.append(engine.apply(OptimizerParameters(learning_rate=1e-2)))
        results[stage] = {
            "logprobs": first.logprobs + second.logprobs,
            "loss": first.loss + second.loss,
            "norms": norms,
            "after": engine.logprobs(samples),
            "weights": {name: float(value.double().sum()) for name, value in engine.weights()},
        }
    out.write_text(json.dumps(results))


main(Path(sys.argv[1]), Path(sys.argv[2]))
