"""Which samples go together: bins of a token budget, the same number on every rank, about the same work on each.

Attention makes a sample's work grow with the square of its length, so bins of equal tokens are not equal: balance is by
cost. Ranks of a data-parallel group wait for each other at every micro-batch (ZeRO-3 gathers weights in it), so all
have equally many, and the i-th of each rank cost about the same.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass


class TooLong(ValueError):
    """A sample does not fit the token budget; the message says which and what to do."""


@dataclass(frozen=True)
class Packing:
    """`ranks[r][m]` are the positions of the samples in rank r's m-th micro-batch.

    A micro-batch is empty only where there are fewer samples than bins; the engine then runs a row of weight 0, because
    its collectives must match the other ranks'.
    """

    ranks: tuple[tuple[tuple[int, ...], ...], ...]

    @property
    def micro_batches(self) -> int:
        return len(self.ranks[0])


def cost(length: int, *, crossover: int = 24_576) -> float:
    """Work of one sequence in units of a token's linear work; at `crossover` tokens attention costs as much again.

    Linear layers take about 2·12·d² operations a token and layer, causal attention about 2·d·length: equal at 12·d
    tokens. The default is 12 times a hidden size of 2,048.
    """
    return length * (1 + length / crossover)


def pack(lengths: Sequence[int], *, ranks: int, budget: int, crossover: int = 24_576) -> Packing:
    """Packs samples of so many tokens into micro-batches of at most `budget` tokens; same input, same result.

    Raises `TooLong` when a sample alone exceeds the budget.
    """
    for position, length in enumerate(lengths):
        if length > budget:
            raise TooLong(
                f"sample {position} has {length} tokens, a micro-batch holds {budget}: raise the token budget, or "
                "lower the agent's context limit"
            )
    order = sorted(range(len(lengths)), key=lambda position: (-lengths[position], position))
    costs = [cost(length, crossover=crossover) for length in lengths]
    each = max(1, -(-sum(lengths) // (budget * ranks)))
    while (bins := _fill(order, lengths, costs, bins=each * ranks, budget=budget)) is None:
        each += 1
    return Packing(_deal(bins, costs, ranks))


def _fill(
    order: Sequence[int], lengths: Sequence[int], costs: Sequence[float], *, bins: int, budget: int
) -> list[list[int]] | None:
    """Longest first, each into the cheapest bin that has room; None when one finds no room."""
    heap = [(0.0, 0, index) for index in range(bins)]  # cost, tokens, bin
    made: list[list[int]] = [[] for _ in range(bins)]
    for position in order:
        full: list[tuple[float, int, int]] = []
        while heap and heap[0][1] + lengths[position] > budget:
            full.append(heapq.heappop(heap))
        if not heap:
            return None
        spent, tokens, index = heapq.heappop(heap)
        made[index].append(position)
        for entry in [*full, (spent + costs[position], tokens + lengths[position], index)]:
            heapq.heappush(heap, entry)
    return made


def _deal(bins: Sequence[list[int]], costs: Sequence[float], ranks: int) -> tuple[tuple[tuple[int, ...], ...], ...]:
    """Rounds of `ranks` bins of similar cost; in each, the dearest goes to the rank that has least so far."""
    worth = [sum(costs[position] for position in made) for made in bins]
    order = sorted(range(len(bins)), key=lambda index: (-worth[index], index))
    dealt: list[list[tuple[int, ...]]] = [[] for _ in range(ranks)]
    totals = [0.0] * ranks
    for start in range(0, len(order), ranks):
        poorest = sorted(range(ranks), key=lambda rank: (totals[rank], rank))
        for rank, index in zip(poorest, order[start : start + ranks], strict=True):
            dealt[rank].append(tuple(sorted(bins[index])))
            totals[rank] += worth[index]
    return tuple(tuple(rank) for rank in dealt)
