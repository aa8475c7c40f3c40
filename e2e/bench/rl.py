"""Recipe A through real processes: `python -m e2e.bench.rl [--seed 0] [--steps 60] [--staleness 3]`.

Coordinator, capture proxy, rollout servers (the reference server, on transformers), samplers and trainer are processes
that `pinnace rl run` starts; the agent is a function with OpenAI's client. Model and task are those of
`rl_recipe_a.py`, which does the same in one process. Mean reward of 200 unseen draws before and after, wall clock, and
what each process waited for are printed. Exits with 1 unless the reward ends at 0.85 or more.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from pinnace.chat import ChatTokenizer
from pinnace.rl.capture.capture import Capture
from pinnace.rl.capture.session import Sessions
from pinnace.rl.engine.export import export
from pinnace.rl.engine.policy import Policy
from pinnace.rl.engine.torch_engine import TorchEngine
from pinnace.rl.rollout import SamplingParameters
from pinnace.rl.scheduler import Slot
from pinnace.tiny.model import write_tiny_model
from transformers import AutoModelForCausalLM

from e2e.apiserver import free_port

from .rl_agent import write_tasks
from .rl_recipe_a import BatchingEngine, play, warm_up


def warmed_up(folder: Path, *, seed: int, steps: int) -> None:
    """Half of the demonstrations are wrong: the model knows the form, not the task."""
    base = folder.with_name("base")
    write_tiny_model(base, seed=seed)
    torch.manual_seed(seed)
    engine = TorchEngine(
        Policy(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), gradient_checkpointing=False),
        token_budget=512,
    )
    warm_up(engine, ChatTokenizer.from_directory(base), steps=steps, batch=32, seed=seed)
    folder.mkdir()
    export(engine, base, folder)


def reward_of(folder: Path, *, seed: int, questions: int = 200) -> float:
    """Mean reward of unseen draws, sampled as in training."""
    import random

    dice = random.Random(f"evaluation-{seed}")  # noqa: S311 - data
    sampling: Any = {"train": SamplingParameters(max_tokens=48)}
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    capture = Capture(
        engine=BatchingEngine(model, seed),
        tokenizer=ChatTokenizer.from_directory(folder),
        sessions=Sessions(sampling),
        context_tokens=512,
    )

    async def all_of_them() -> float:
        plays = [
            play(capture, Slot(number, 0, 0), dice.randrange(100), dice.randrange(100)) for number in range(questions)
        ]
        return sum(one.reward.value or 0.0 for one in await asyncio.gather(*plays)) / questions

    return asyncio.run(all_of_them())


def configuration(folder: Path, *, model: Path, seed: int, steps: int, staleness: int, **more: Any) -> dict[str, Any]:
    """What `pinnace rl run` reads. `more` replaces or adds fields."""
    write_tasks(folder / "tasks.jsonl")
    servers = more.pop("servers", 1)
    return {
        "model": str(model),
        "folder": str(folder / "run"),
        "seed": seed,
        "steps": steps,
        "checkpointEvery": 20,
        "tasks": str(folder / "tasks.jsonl"),
        "agent": {"function": "e2e.bench.rl_agent:play", "seconds": 60},
        "reward": "e2e.bench.rl_agent:reward",
        "schedule": {"groupsPerStep": 8, "groupSize": 8, "maxStaleness": staleness, "concurrency": 64},
        "optimizer": {"learningRate": 1e-3},
        "engine": {"tokenBudget": 512, "gradientCheckpointing": False},
        "contextTokens": 512,
        "maxTokens": 48,
        "servers": [{"url": f"http://127.0.0.1:{free_port()}"} for _ in range(servers)],
        "coordinator": f"http://127.0.0.1:{free_port()}",
        "proxy": f"http://127.0.0.1:{free_port()}",
        **more,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--staleness", type=int, default=1)
    parser.add_argument("--warm", type=int, default=400)
    parser.add_argument("--servers", type=int, default=1)
    parser.add_argument("--samplers", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="rl-bench-") as made:
        folder = Path(made)
        warmed_up(folder / "model", seed=given.seed, steps=given.warm)
        before = reward_of(folder / "model", seed=given.seed)
        print(f"seed {given.seed}: {before:.3f} after the warm-up", flush=True)
        written = configuration(
            folder, model=folder / "model", seed=given.seed, steps=given.steps, staleness=given.staleness,
            servers=given.servers, samplers=given.samplers,
        )  # fmt: skip
        (folder / "run.json").write_text(json.dumps(written))
        began = time.monotonic()
        ended = subprocess.run(
            [sys.executable, "-m", "pinnace", "rl", "run", str(folder / "run.json")],
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            check=False,
        )
        seconds = time.monotonic() - began
        if ended.returncode:
            for log in sorted((folder / "run" / "logs").glob("*.log")):
                print(f"--- {log.name}\n{log.read_text()[-3000:]}")
            sys.exit(ended.returncode)
        lines = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
        after = reward_of(folder / "run" / "output", seed=given.seed)
    last = lines[-1]
    print(
        f"seed {given.seed}: {before:.3f} -> {after:.3f} in {given.steps} steps, {seconds:.0f} s; "
        f"max staleness {max(line['staleness_max'] for line in lines):.0f}, "
        f"mean mismatch KL {sum(line['mismatch_kl'] for line in lines) / len(lines):.2g}"
    )
    print("trainer: " + ", ".join(f"{name[6:]} {last[name]:.0%}" for name in last if name.startswith("share_")))
    sys.exit(0 if after >= 0.85 else 1)


if __name__ == "__main__":
    main()
