"""Draws tokens for many prompts at once. Imports torch."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM

from pinnace.rl.rollout import SamplingParameters


@dataclass(frozen=True)
class Drawn:
    """`finish`: `stop`, `length`, or `abort` for an answer that was cut short."""

    ids: list[int]
    behaviour_logprobs: list[float]
    policy_versions: list[int]
    finish: str


@dataclass
class _Row:
    parameters: SamplingParameters
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    finish: str = "abort"

    def take(self, token: int, logprob: float) -> bool:
        """Whether the answer goes on."""
        self.ids.append(token)
        self.logprobs.append(logprob)
        if token in self.parameters.stop_ids:
            self.finish = "stop"
        elif len(self.ids) >= self.parameters.max_tokens:
            self.finish = "length"
        return self.finish == "abort"


class Decoder:
    """One model. `sample` and `load` must not run at the same time; `stop` may be set while `sample` runs."""

    def __init__(self, folder: Path, *, seed: int = 0) -> None:
        self.version = -1
        self.stop = threading.Event()
        self._model: Any = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder), dtype=torch.float32)
        self._model.eval()
        self._dice = torch.Generator().manual_seed(seed)

    def load(self, version: int, folder: Path) -> None:
        """Raises OSError, `safetensors.SafetensorError` or RuntimeError (other names or shapes); then nothing is
        changed but the weights read so far, and the version is -1."""
        self.version = -1
        weights = {
            name: value for path in sorted(folder.glob("*.safetensors")) for name, value in load_file(path).items()
        }
        found = self._model.load_state_dict(weights, strict=False)
        tied = set(getattr(self._model, "all_tied_weights_keys", ()) or ())
        if found.unexpected_keys or set(found.missing_keys) - tied:
            raise RuntimeError(f"{folder} has not this model's weights: {found}")
        self.version = version

    @torch.inference_mode()
    def sample(self, prompts: Sequence[tuple[Sequence[int], SamplingParameters]]) -> list[Drawn]:
        """All answers; with `abort` and what there is by then, where `stop` was set."""
        rows = [_Row(parameters) for _, parameters in prompts]
        width = max(len(ids) for ids, _ in prompts)
        given = torch.tensor([[0] * (width - len(ids)) + list(ids) for ids, _ in prompts])
        mask = torch.tensor([[0] * (width - len(ids)) + [1] * len(ids) for ids, _ in prompts])
        heat = torch.tensor([[parameters.temperature] for _, parameters in prompts])
        running, cache = set(range(len(rows))), None
        while running and not self.stop.is_set():
            positions = (mask.cumsum(-1) - 1).clamp(min=0)[:, -given.shape[1] :]
            made = self._model(
                given, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True
            )
            cache = made.past_key_values
            logs = torch.log_softmax(made.logits[:, -1].float() / heat, -1)
            given = torch.multinomial(logs.exp(), 1, generator=self._dice)
            drawn = zip(given.squeeze(-1).tolist(), logs.gather(-1, given).squeeze(-1).tolist(), strict=True)
            running -= {
                row for row, (token, value) in enumerate(drawn) if row in running and not rows[row].take(token, value)
            }
            mask = torch.cat([mask, torch.ones(len(rows), 1, dtype=mask.dtype)], -1)
        return [Drawn(row.ids, row.logprobs, [self.version] * len(row.ids), row.finish) for row in rows]
