"""The losses of one candidate: `python -m pinnace.merge.score MODEL DATA DEVICE`.

A process of its own, which gives the model's memory back for certain, and the only part of merging that needs
transformers. It prints a line of JSON after each sample, and a last one with both losses.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM

IGNORED = -100
_ROWS = 1024  # of logits in float32 at once


def main(model: str, data: str, device: str) -> None:
    """Scores both data sets."""
    sets: dict[str, list[tuple[list[int], list[int]]]] = json.loads(Path(data).read_text())
    network = AutoModelForCausalLM.from_pretrained(model, dtype="auto", attn_implementation="sdpa").to(device).eval()
    done, total = 0, sum(map(len, sets.values()))
    losses = {}
    for name, samples in sets.items():
        loss, tokens = 0.0, 0
        for ids, labels in samples:
            one, count = sample_loss(network, ids, labels)
            loss, tokens, done = loss + one, tokens + count, done + 1
            print(json.dumps({"samples": done, "of": total}), flush=True)
        losses[name] = loss / tokens
    print(json.dumps(losses), flush=True)


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
