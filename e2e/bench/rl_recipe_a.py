"""Does the RL core learn? A tool-using agent of half a million parameters, in one process on the CPU.

    .venv/bin/python e2e/bench/rl_recipe_a.py [--seed 0] [--lag 1] [--steps 60]

The task is `arithmetic-tools` without its schemas: the user writes `a+b`, the model calls `add`, reads the result and
answers. The model is warmed up on demonstrations of which half have wrong arguments, so that it knows the form and not
the task. Then it is trained by reward alone, through the modules that an RLRun uses: capture, scheduler, signal, loss,
engine. The sampler's weights are refreshed every `lag` steps, which makes samples up to lag - 1 versions old.
Exits with 1 unless the reward is at least 0.70 and at least 0.35 over the warmed-up model's.
"""

from __future__ import annotations

import argparse
import asyncio
import copy
import random
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from pinnace.chat import ChatTokenizer, Conversation, Message, Renderer, parse_conversation
from pinnace.rl.capture.capture import Capture
from pinnace.rl.capture.session import Sessions
from pinnace.rl.engine.policy import Policy
from pinnace.rl.engine.protocol import OptimizerParameters
from pinnace.rl.engine.torch_engine import TorchEngine
from pinnace.rl.loss import LOSSES, TokenLoss, Tokens
from pinnace.rl.rollout import Generation, SamplingParameters
from pinnace.rl.scheduler import Schedule, Scheduler, Slot
from pinnace.rl.signal.denoise import Denoising, denoise
from pinnace.rl.signal.samples import Signal, build_samples
from pinnace.rl.types import Reward, Sample, Termination, Trajectory
from pinnace.tiny.model import write_tiny_model
from pinnace.tiny.task import add, arithmetic_tools, question
from transformers import AutoModelForCausalLM

TURNS = 3


class BatchingEngine:
    """A `RolloutEngine` that answers everybody who waits in one batch, padded on the left."""

    def __init__(self, model: Any, seed: int) -> None:
        self.model, self.version = model, 0
        self._dice = torch.Generator().manual_seed(seed)
        self._waiting: list[tuple[Sequence[int], asyncio.Future[Generation]]] = []

    async def generate(self, ids: Sequence[int], parameters: SamplingParameters) -> Generation:
        answer: asyncio.Future[Generation] = asyncio.get_running_loop().create_future()
        self._waiting.append((ids, answer))
        if len(self._waiting) == 1:
            asyncio.get_running_loop().call_soon(self._when_quiet, 1, parameters)
        return await answer

    def _when_quiet(self, seen: int, parameters: SamplingParameters) -> None:
        """Runs once nobody else has come in a turn of the event loop."""
        if len(self._waiting) > seen:
            asyncio.get_running_loop().call_soon(self._when_quiet, len(self._waiting), parameters)
            return
        waiting, self._waiting = self._waiting, []
        for (_, answer), made in zip(waiting, self._sample([ids for ids, _ in waiting], parameters), strict=True):
            answer.set_result(made)

    @torch.inference_mode()
    def _sample(self, prompts: Sequence[Sequence[int]], parameters: SamplingParameters) -> list[Generation]:
        width = max(map(len, prompts))
        given = torch.tensor([[0] * (width - len(ids)) + list(ids) for ids in prompts])
        mask = torch.tensor([[0] * (width - len(ids)) + [1] * len(ids) for ids in prompts])
        ids, logprobs = [list[int]() for _ in prompts], [list[float]() for _ in prompts]
        running, cache = set(range(len(prompts))), None
        for _ in range(parameters.max_tokens):
            positions = (mask.cumsum(-1) - 1).clamp(min=0)[:, -given.shape[1] :]
            made = self.model(given, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True)
            cache = made.past_key_values
            rows = torch.log_softmax(made.logits[:, -1].float() / parameters.temperature, -1)
            given = torch.multinomial(rows.exp(), 1, generator=self._dice)
            drawn = rows.gather(-1, given).squeeze(-1).tolist()
            for row in list(running):
                ids[row].append(int(given[row]))
                logprobs[row].append(drawn[row])
                if ids[row][-1] in parameters.stop_ids:
                    running.remove(row)
            if not running:
                break
            mask = torch.cat([mask, torch.ones(len(prompts), 1, dtype=mask.dtype)], -1)
        return [
            Generation(
                ids=tuple(out),
                behaviour_logprobs=tuple(some),
                policy_versions=(self.version,) * len(out),
                finish="length" if row in running else "stop",
            )
            for row, (out, some) in enumerate(zip(ids, logprobs, strict=True))
        ]


async def play(capture: Capture, slot: Slot, a: int, b: int) -> Trajectory:
    """The agent: asks, calls the tool as the model says, and stops at an answer."""
    session = capture.sessions.open(id=slot.id, task_id=question(a, b), group_id=str(slot.group))
    messages: tuple[Message, ...] = (Message("user", question(a, b)),)
    termination = Termination.TURN_LIMIT
    for _ in range(TURNS):
        message = (await capture.answer(session, Conversation(messages), max_tokens=None)).message
        messages += (
            message,
            *(Message("tool", add(call.arguments), tool_call_id=call.id) for call in message.tool_calls),
        )
        if not message.tool_calls:
            session.reward = Reward.right() if message.content == str(a + b) else Reward.wrong()
            termination = Termination.ANSWERED
            break
    else:
        session.reward = Reward.wrong()
    return capture.sessions.close(session.key, termination)


def warm_up(engine: TorchEngine, tokenizer: ChatTokenizer, *, steps: int, batch: int, seed: int) -> None:
    """Supervised: the loss is -log p of demonstrations, of which half call the tool with arguments that are wrong."""
    dice = random.Random(seed)  # noqa: S311 - data, not a secret
    renderer = Renderer(tokenizer)
    records = list(arithmetic_tools(steps * batch, seed))
    for step in range(steps):
        samples = []
        for record in records[step * batch : (step + 1) * batch]:
            if dice.random() < 0.5:
                _spoil(record["messages"], dice)
            conversation = parse_conversation({"messages": record["messages"]})
            samples += [_demonstration(one.input_ids, one.labels) for one in renderer.samples(conversation)]
        total = sum(sample.trained_tokens for sample in samples)
        weighed = [replace(one, weights=tuple(weight / total for weight in one.weights)) for one in samples]
        engine.accumulate(weighed, _cross_entropy)
        engine.apply(OptimizerParameters(learning_rate=3e-3))


def _spoil(messages: list[dict[str, Any]], dice: random.Random) -> None:
    arguments = {"a": dice.randrange(100), "b": dice.randrange(100)}
    messages[1]["tool_calls"][0]["function"]["arguments"] = arguments
    messages[2]["content"] = messages[3]["content"] = add(arguments)


def _cross_entropy(tokens: Tokens) -> TokenLoss:
    return TokenLoss(-tokens.trained_logp)


def _demonstration(ids: list[int], labels: list[int]) -> Sample:
    mask = tuple(label >= 0 for label in labels)
    zeros, ones = (0.0,) * len(ids), tuple(map(float, mask))
    return Sample(
        trajectory_id="demonstration", group_id="", ids=tuple(ids), loss_mask=mask, behaviour_logprobs=zeros,
        policy_versions=(0,) * len(ids), advantages=zeros, weights=ones,
    )  # fmt: skip


class Run:
    """Everything of one run; `train` is the loop."""

    def __init__(self, folder: Path, *, seed: int, lag: int, groups: int = 8, group_size: int = 8) -> None:
        write_tiny_model(folder, seed=seed)
        self.seed, self.lag = seed, lag
        self.tokenizer = ChatTokenizer.from_directory(folder)
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        self.model = model
        self.engine = TorchEngine(Policy(model, gradient_checkpointing=False), token_budget=512)
        self.rollout = BatchingEngine(copy.deepcopy(model).eval(), seed)
        sampling: Any = {"train": SamplingParameters(max_tokens=48), "validation": SamplingParameters(max_tokens=48)}
        self.capture = Capture(
            engine=self.rollout, tokenizer=self.tokenizer, sessions=Sessions(sampling), context_tokens=512
        )
        self.scheduler = Scheduler(
            Schedule(
                groups_per_step=groups, group_size=group_size, max_staleness=lag - 1, concurrency=groups * group_size
            )
        )
        self.counts: Counter[str] = Counter()

    def refresh(self) -> None:
        """The sampler gets the trainer's weights."""
        self.rollout.model.load_state_dict(self.model.state_dict())
        self.rollout.version = self.scheduler.version

    async def reward(self, questions: int = 200) -> float:
        """Mean reward of unseen questions, sampled as in training."""
        dice = random.Random(f"evaluation-{self.seed}")  # noqa: S311
        plays = [
            play(self.capture, Slot(10**6 + number, 0, 0), dice.randrange(100), dice.randrange(100))
            for number in range(questions)
        ]
        return statistics.fmean(trajectory.reward.value or 0.0 for trajectory in await asyncio.gather(*plays))

    async def step(self) -> dict[str, float]:
        """Samples until there is a batch, and trains on it."""
        ready = {}
        while True:
            slots = self.scheduler.admit()
            played = await asyncio.gather(*(play(self.capture, slot, *self._task(slot.group)) for slot in slots))
            for slot, trajectory in zip(slots, played, strict=True):
                self.scheduler.finished(slot, trajectory)
            for group, members in self.scheduler.complete().items():
                if group not in ready:
                    ready[group] = denoise(members, Denoising())
                    self.counts.update(ready[group].counts)
                    if ready[group].refill:
                        self.scheduler.discard(group, str(ready[group].refill))
            batch = self.scheduler.cut()
            if batch is not None:
                break
        oldest = min(member.oldest_version or 0 for members in batch.values() for member in members)
        samples = build_samples([ready[group] for group in batch], Signal())
        made = self.engine.accumulate(samples, LOSSES["grpo"])
        self.engine.apply(OptimizerParameters(learning_rate=1e-3))
        staleness = self.scheduler.version - oldest
        self.scheduler.stepped(self.scheduler.version + 1)
        if self.scheduler.version % self.lag == 0:
            self.refresh()
        return {"staleness": staleness, "mismatch": _mismatch(samples, made.logprobs)}

    def _task(self, group: int) -> tuple[int, int]:
        dice = random.Random(f"{self.seed}-{group}")  # noqa: S311
        return dice.randrange(100), dice.randrange(100)


def _mismatch(samples: Sequence[Sample], logprobs: Sequence[Sequence[float]]) -> float:
    """The largest difference between a log-prob of the sampler and the trainer's."""
    return max(
        abs(there - here)
        for sample, row in zip(samples, logprobs, strict=True)
        for there, here in zip(sample.behaviour_logprobs, row, strict=True)
    )


async def measure(*, seed: int, lag: int, steps: int, warm: int) -> bool:
    torch.manual_seed(seed)
    torch.set_num_threads(1)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        run = Run(Path(folder), seed=seed, lag=lag)
        warm_up(run.engine, run.tokenizer, steps=warm, batch=32, seed=seed)
        run.refresh()
        before = await run.reward()
        print(f"seed {seed}, lag {lag}: after warm-up {before:.3f} ({time.monotonic() - began:.0f} s)", flush=True)
        staleness, mismatch = 0.0, 0.0
        for number in range(1, steps + 1):
            seen = await run.step()
            staleness, mismatch = max(staleness, seen["staleness"]), max(mismatch, seen["mismatch"])
            if number % 10 == 0:
                print(f"  step {number}: {dict(run.counts + run.capture.counts)}", flush=True)
        run.refresh()
        after = await run.reward()
    print(
        f"seed {seed}, lag {lag}: {before:.3f} -> {after:.3f} in {steps} steps, {time.monotonic() - began:.0f} s; "
        f"max staleness {staleness:.0f}, max |log-prob difference| {mismatch:.2g}"
    )
    return after >= 0.70 and after - before >= 0.35


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--lag", type=int, default=1)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--warm", type=int, default=400)
    given = parser.parse_args()
    learned = asyncio.run(measure(seed=given.seed, lag=given.lag, steps=given.steps, warm=given.warm))
    sys.exit(0 if learned else 1)


if __name__ == "__main__":
    main()
