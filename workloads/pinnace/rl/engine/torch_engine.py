"""The plain engine: one process, torch's AdamW. What the other engines must equal."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from pinnace.rl.loss import Loss
from pinnace.rl.pack import pack
from pinnace.rl.types import Sample

from .batch import Batch
from .policy import Policy
from .protocol import Accumulated, Logprobs, NotFinite, OptimizerParameters

_STATE = "engine.pt"


class TorchEngine:
    """A `TrainEngine` of one rank."""

    def __init__(self, policy: Policy, *, token_budget: int, max_grad_norm: float = 1.0) -> None:
        """`token_budget` is the most tokens of a micro-batch."""
        self._policy = policy
        self._budget = token_budget
        self._max_grad_norm = max_grad_norm
        self._optimizer = torch.optim.AdamW(policy.parameters())

    def accumulate(
        self, samples: Sequence[Sample], loss: Loss, *, prox: Logprobs | None = None, reference: Logprobs | None = None
    ) -> Accumulated:
        batch = Batch(samples, loss, prox, reference)
        for positions in self._micro_batches(samples):
            batch.micro_batch(self._policy, positions, self._device).backward()  # type: ignore[no-untyped-call] # torch
        return batch.accumulated()

    def apply(self, parameters: OptimizerParameters) -> float:
        norm = float(nn.utils.clip_grad_norm_(self._policy.parameters(), self._max_grad_norm))
        if not math.isfinite(norm):
            self._optimizer.zero_grad()
            raise NotFinite(f"the gradient norm is {norm}")
        for group in self._optimizer.param_groups:
            group |= {
                "lr": parameters.learning_rate,
                "weight_decay": parameters.weight_decay,
                "betas": (parameters.beta1, parameters.beta2),
            }
        self._optimizer.step()
        self._optimizer.zero_grad()
        return norm

    @torch.no_grad()
    def logprobs(self, samples: Sequence[Sample]) -> Logprobs:
        batch = Batch(samples, None)
        for positions in self._micro_batches(samples):
            batch.micro_batch(self._policy, positions, self._device)
        return batch.accumulated().logprobs

    @torch.no_grad()
    def next_logprobs(self, ids: Sequence[int]) -> tuple[float, ...]:
        return tuple(self._policy(torch.tensor(ids, device=self._device))[0].tolist())

    def save(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        parts = {"model": self._policy.model.state_dict(), "optimizer": self._optimizer.state_dict()}
        torch.save({**parts, "random": torch.get_rng_state()}, directory / _STATE)

    def load(self, directory: Path) -> None:
        parts = torch.load(directory / _STATE, map_location="cpu", weights_only=True)
        self._policy.model.load_state_dict(parts["model"])
        self._optimizer.load_state_dict(parts["optimizer"])
        torch.set_rng_state(parts["random"])

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        return ((name, value.detach()) for name, value in self._policy.model.named_parameters())

    @property
    def _device(self) -> torch.device:
        return next(self._policy.parameters()).device

    def _micro_batches(self, samples: Sequence[Sample]) -> Sequence[tuple[int, ...]]:
        packing = pack([len(sample.ids) for sample in samples], ranks=1, budget=self._budget)
        return [positions for positions in packing.ranks[0] if positions]
