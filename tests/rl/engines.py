"""Rollout engines in the test's own process: a real tiny Qwen3 on transformers, and one that follows a script."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pinnace.chat import ChatTokenizer
from pinnace.rl.rollout import EngineUnavailable, Generation, SamplingParameters
from pinnace.rl.types import Trajectory


@dataclass
class Logged:
    """Everything that was ever sampled: what trained tokens are compared with."""

    calls: list[tuple[tuple[int, ...], Generation]] = field(default_factory=list)
    parameters: list[SamplingParameters] = field(default_factory=list)


class ScriptedEngine(Logged):
    """Says what it is told, token by token, as if it had sampled it."""

    def __init__(self, tokenizer: ChatTokenizer, texts: Sequence[str] = ()) -> None:
        super().__init__()
        self.tokenizer, self.texts, self.version = tokenizer, deque(texts), 0
        self.failures: deque[Generation | EngineUnavailable] = deque()
        self.started = asyncio.Event()
        self.go = asyncio.Event()
        self.go.set()

    async def generate(self, ids: Sequence[int], parameters: SamplingParameters) -> Generation:
        self.started.set()
        await self.go.wait()
        if self.failures:
            failure = self.failures.popleft()
            if isinstance(failure, EngineUnavailable):
                raise failure
            return failure
        whole = self.tokenizer.encode(self.texts.popleft())
        out = tuple(whole[: parameters.max_tokens])
        made = Generation(
            ids=out,
            behaviour_logprobs=tuple(-(len(self.calls) + 1) - position / 1000 for position in range(len(out))),
            policy_versions=(self.version,) * len(out),
            finish="stop" if len(out) == len(whole) else "length",
        )
        self.calls.append((tuple(ids), made))
        self.parameters.append(parameters)
        return made


class TinyEngine(Logged):
    """A Qwen3 on the CPU, sampled with its key-value cache; every call comes from the next policy version."""

    def __init__(self, directory: Path, seed: int = 0) -> None:
        super().__init__()
        import torch
        from transformers import AutoModelForCausalLM

        self.model: Any = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
        self.dice = torch.Generator().manual_seed(seed)

    async def generate(self, ids: Sequence[int], parameters: SamplingParameters) -> Generation:
        made = self._sample(list(ids), parameters)
        self.calls.append((tuple(ids), made))
        self.parameters.append(parameters)
        return made

    def _sample(self, ids: list[int], parameters: SamplingParameters) -> Generation:
        import torch

        out, logprobs, cache, given = list[int](), list[float](), None, ids
        with torch.inference_mode():
            while len(out) < parameters.max_tokens and not (out and out[-1] in parameters.stop_ids):
                made = self.model(torch.tensor([given]), past_key_values=cache, use_cache=True)
                cache = made.past_key_values
                row = torch.log_softmax(made.logits[0, -1].float() / parameters.temperature, -1)
                token = int(torch.multinomial(row.exp(), 1, generator=self.dice))
                out.append(token)
                logprobs.append(float(row[token]))
                given = [token]
        return Generation(
            ids=tuple(out),
            behaviour_logprobs=tuple(logprobs),
            policy_versions=(len(self.calls),) * len(out),
            finish="stop" if out and out[-1] in parameters.stop_ids else "length",
        )


def check_every_token(trajectory: Trajectory, engine: Logged, *, lost: int = 0) -> None:
    """Trained tokens are sampled tokens: each with its prefix, log-prob and version, each once, and none is missing."""
    sampled = []
    for prompt, made in engine.calls:
        for at, token in enumerate(made.ids):
            before = prompt + made.ids[:at]
            sampled.append((before, token, made.behaviour_logprobs[at], made.policy_versions[at]))
    trained = []
    for part in trajectory.segments:
        for turn in part.turns:
            for at, logprob, version in zip(
                range(turn.start, turn.end), turn.behaviour_logprobs, turn.policy_versions, strict=True
            ):
                trained.append((part.ids[:at], part.ids[at], logprob, version))
    assert len(trained) == len(sampled) - lost
    remaining = list(sampled)
    for token in trained:
        remaining.remove(token)  # each sampled token is used up by one trained token
