"""Which checkpoints to keep: a pure decision."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from decimal import Decimal

from pinnace.storage.manifest import Manifest


def best_steps(manifests: Iterable[Manifest], count: int) -> list[int]:
    """Steps with the highest scores, best first; of equals the newer. Without a score: not among them."""
    scored = [(Decimal(m.score), m.step) for m in manifests if m.score is not None and m.step is not None]
    return [step for _, step in sorted(scored, reverse=True)[:count]]


def superseded(manifests: Collection[Manifest], *, last: int, best: int, protected: Collection[int] = ()) -> list[int]:
    """Steps to delete, oldest first: all but the newest `last` (at least one), the `best` and the protected."""
    steps = sorted(m.step for m in manifests if m.step is not None)
    keep = {*steps[-max(last, 1) :], *best_steps(manifests, best), *protected}
    return [step for step in steps if step not in keep]
