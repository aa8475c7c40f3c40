"""DeepSpeed ZeRO 0 to 3, over any number of data-parallel ranks."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import deepspeed
import torch
import torch.distributed as dist
from torch import Tensor, nn

from pinnace.rl.loss import Loss
from pinnace.rl.pack import pack
from pinnace.rl.types import Sample

from .batch import Batch
from .policy import Policy
from .protocol import Accumulated, Logprobs, NotFinite, OptimizerParameters

_TAG = "engine"


class DeepSpeedEngine:
    """A `TrainEngine`. `deepspeed.init_distributed` must have been called, and every rank must hold the same weights.

    DeepSpeed reduces gradients at the backward pass that it is told is the last one, and `accumulate` can't know which
    that will be. So no real one is: `apply` runs a row of no weight as the last.
    """

    def __init__(
        self,
        policy: Policy,
        *,
        token_budget: int,
        zero_stage: Literal[0, 1, 2, 3] = 2,
        offload_optimizer: bool = False,
        bf16: bool = False,
        max_grad_norm: float = 1.0,
    ) -> None:
        zero: dict[str, Any] = {"stage": zero_stage}
        if offload_optimizer:
            zero["offload_optimizer"] = {"device": "cpu"}
        self._stage = zero_stage
        self._budget = token_budget
        self._engine, self._optimizer, _, _ = deepspeed.initialize(
            model=policy,
            model_parameters=list(policy.parameters()),
            config={
                "train_micro_batch_size_per_gpu": 1,
                "gradient_accumulation_steps": 1,
                "gradient_clipping": max_grad_norm,
                "zero_optimization": zero,
                "bf16": {"enabled": bf16},
                "optimizer": {"type": "AdamW", "params": {"lr": 0.0, "weight_decay": 0.0, "torch_adam": True}},
                "zero_allow_untested_optimizer": True,
            },
        )

    def accumulate(
        self, samples: Sequence[Sample], loss: Loss, *, prox: Logprobs | None = None, reference: Logprobs | None = None
    ) -> Accumulated:
        batch = Batch(samples, loss, prox, reference)
        self._engine.set_gradient_accumulation_boundary(False)
        for positions in self._micro_batches(samples):
            if positions:
                made = batch.micro_batch(self._engine, positions, self._engine.device)
            else:
                made = batch.filler(self._engine, self._engine.device)
            self._engine.backward(made * dist.get_world_size())  # DeepSpeed averages over ranks, we sum
        return self._gathered(batch)

    def apply(self, parameters: OptimizerParameters) -> float:
        self._engine.set_gradient_accumulation_boundary(True)
        self._engine.backward(Batch([], None).filler(self._engine, self._engine.device))
        for group in self._optimizer.param_groups:
            group |= {
                "lr": parameters.learning_rate,
                "weight_decay": parameters.weight_decay,
                "betas": (parameters.beta1, parameters.beta2),
            }
        # Stage 0 in float32 clips without keeping the norm; its gradients are whole by now.
        before = nn.utils.get_total_norm(
            [value.grad for value in self._engine.module.parameters() if value.grad is not None]
        )
        self._engine.step()
        known = self._engine.get_global_grad_norm()
        norm = float(before if known is None else known)
        if not math.isfinite(norm):
            raise NotFinite(f"the gradient norm is {norm}")
        return norm

    @torch.no_grad()
    def logprobs(self, samples: Sequence[Sample]) -> Logprobs:
        batch = Batch(samples, None)
        for positions in self._micro_batches(samples):
            if positions:
                batch.micro_batch(self._engine, positions, self._engine.device)
            else:
                batch.filler(self._engine, self._engine.device)
        return self._gathered(batch).logprobs

    @torch.no_grad()
    def next_logprobs(self, ids: Sequence[int]) -> tuple[float, ...]:
        return tuple(self._engine(torch.tensor(ids, device=self._engine.device))[0].tolist())

    def save(self, directory: Path) -> None:
        self._engine.save_checkpoint(str(directory), tag=_TAG, client_state={"random": torch.get_rng_state()})

    def load(self, directory: Path) -> None:
        _, state = self._engine.load_checkpoint(str(directory), tag=_TAG)
        torch.set_rng_state(state["random"])

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        for name, value in self._engine.module.model.named_parameters():
            with deepspeed.zero.GatheredParameters([value], enabled=self._stage == 3):
                yield name, value.detach().clone()

    def _micro_batches(self, samples: Sequence[Sample]) -> Sequence[tuple[int, ...]]:
        packing = pack([len(sample.ids) for sample in samples], ranks=dist.get_world_size(), budget=self._budget)
        return packing.ranks[dist.get_rank()]

    def _gathered(self, batch: Batch) -> Accumulated:
        """Every rank's part together, in the order of the samples."""
        others: list[Any] = [None] * dist.get_world_size()
        mine = (batch.logprobs, batch.total, batch.not_finite, dict(batch.sums))
        dist.all_gather_object(others, mine)
        whole = Batch(batch.samples, None)
        for logprobs, total, not_finite, sums in others:
            whole.join(Batch((), None, logprobs=logprobs, total=total, not_finite=not_finite, sums=sums))
        return whole.accumulated()
