"""A causal language model as a policy: log-probs and entropies of given tokens, without ever holding all logits.

The logits of 131,072 tokens over 151,936 words take 80 GB in float32. Here the head runs over a chunk of the trained
places at a time, and again in the backward pass.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .row import Row


class Policy(nn.Module):
    """Wraps a `transformers` causal LM (`model.model` and `model.lm_head`)."""

    def __init__(
        self, model: Any, *, temperature: float = 1.0, chunk: int = 1024, gradient_checkpointing: bool = True
    ) -> None:
        """`temperature` is the sampler's; `chunk` is how many tokens' logits exist at once."""
        super().__init__()
        self.model = model.train()  # transformers checkpoints only then; policies have no dropout
        if gradient_checkpointing:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        self._temperature = temperature
        self._chunk = chunk

    def forward(self, row: Row | Tensor) -> tuple[Tensor, Tensor]:
        """Natural log-prob and entropy (nats) of the row's trained tokens, float32, shape [trained].

        Of ids [T] alone: log-probs of every token that may come next, [vocabulary], and their entropy. Both ways go
        through this one call, because ZeRO-3 gathers weights only inside it.
        """
        model: Any = self.model
        if isinstance(row, Tensor):
            last = model.model(input_ids=row[None], use_cache=False).last_hidden_state[0, -1]
            logs = torch.log_softmax(model.lm_head(last).float() / self._temperature, -1)
            return logs, -(logs.exp() * logs).sum()
        hidden = model.model(input_ids=row.ids, position_ids=row.positions, use_cache=False).last_hidden_state[0]
        before = hidden[row.trained - 1]  # what was known when the token was drawn
        return chunked_logprobs(
            before, model.lm_head, row.ids[0, row.trained], temperature=self._temperature, chunk=self._chunk
        )


def chunked_logprobs(
    hidden: Tensor, head: nn.Module, targets: Tensor, *, temperature: float, chunk: int
) -> tuple[Tensor, Tensor]:
    """Log-probs of `targets` and, without gradient, entropies: [N]; `hidden` is [N, d], `chunk` of it at once."""

    def part(states: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
        logs = torch.log_softmax(head(states).float() / temperature, -1)
        with torch.no_grad():  # with a graph that nobody goes back through, all chunks' logits would stay alive at once
            entropy = -(logs.exp() * logs).sum(-1)
        return logs.gather(-1, wanted[:, None]).squeeze(-1), entropy

    made = [
        checkpoint(part, hidden[start : start + chunk], targets[start : start + chunk], use_reentrant=False)
        for start in range(0, max(1, len(targets)), chunk)
    ]
    return torch.cat([logprob for logprob, _ in made]), torch.cat([entropy for _, entropy in made])
