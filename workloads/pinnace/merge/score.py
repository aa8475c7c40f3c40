"""The losses of candidates: `python -m pinnace.merge.score DATA DEVICE`, with a model's folder in each line of stdin.

A process of its own, whose memory does not add to the merge's limit, and the only part of merging that needs
transformers. It prints a line of JSON after each sample, and one with both losses after each model.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM

IGNORED = -100
_ROWS = 1024  # of logits in float32 at once
Sets = Mapping[str, Sequence[tuple[list[int], list[int]]]]


def main(data: str, device: str) -> None:
    """Scores one model after the other."""
    sets: Sets = json.loads(Path(data).read_text())
    for line in sys.stdin:
        for told in scored(line.strip(), sets, device):
            print(json.dumps(told), flush=True)


def scored(model: str, sets: Sets, device: str) -> Iterator[dict[str, float]]:
    """How far it is, after each sample; the losses at the end."""
    network = AutoModelForCausalLM.from_pretrained(model, dtype="auto", attn_implementation="sdpa").to(device).eval()
    done, total = 0, sum(map(len, sets.values()))
    losses = {}
    for name, samples in sets.items():
        loss, tokens = 0.0, 0
        for ids, labels in samples:
            one, count = sample_loss(network, ids, labels)
            loss, tokens, done = loss + one, tokens + count, done + 1
            yield {"samples": done, "of": total}
        losses[name] = loss / tokens
    yield losses


@torch.inference_mode()
def sample_loss(network: Any, ids: Sequence[int], labels: Sequence[int]) -> tuple[float, int]:
    """The summed cross-entropy of the labelled tokens, and how many they are. Other tokens need no logits."""
    wanted = [place for place, label in enumerate(labels) if place and label != IGNORED]
    before = torch.tensor(wanted, device=network.device) - 1
    targets = torch.tensor([labels[place] for place in wanted], device=network.device)
    given = torch.tensor([ids], device=network.device)
    logits = network(input_ids=given, use_cache=False, logits_to_keep=before).logits[0]
    parts = zip(torch.split(logits, _ROWS), torch.split(targets, _ROWS), strict=True)
    loss = sum(float(cross_entropy(rows.float(), wanted_ids, reduction="sum")) for rows, wanted_ids in parts)
    return loss, len(wanted)


if __name__ == "__main__":
    main(*sys.argv[1:])
