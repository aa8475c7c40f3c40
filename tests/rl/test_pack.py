"""Every sample once, no bin over its budget, all ranks equally many bins and about the same work."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pinnace.rl.pack import TooLong, cost, pack

lengths = st.lists(st.integers(1, 1000), max_size=60)
ranks = st.integers(1, 8)


@given(lengths, ranks)
def test_every_sample_is_packed_once_within_the_budget(sizes: list[int], world: int) -> None:
    packing = pack(sizes, ranks=world, budget=1000)
    placed = [position for rank in packing.ranks for micro in rank for position in micro]
    assert sorted(placed) == list(range(len(sizes)))
    assert all(sum(sizes[position] for position in micro) <= 1000 for rank in packing.ranks for micro in rank)


@given(lengths, ranks)
def test_ranks_have_equally_many_micro_batches_and_none_is_empty_without_need(sizes: list[int], world: int) -> None:
    packing = pack(sizes, ranks=world, budget=1000)
    assert {len(rank) for rank in packing.ranks} == {packing.micro_batches}
    empty = sum(not micro for rank in packing.ranks for micro in rank)
    assert empty <= max(0, world * packing.micro_batches - len(sizes))


@given(lengths, ranks)
def test_not_many_more_micro_batches_than_the_tokens_need(sizes: list[int], world: int) -> None:
    """Where every sample takes at most half a bin, bins that could not be merged are over half full."""
    halves = [min(size, 500) for size in sizes]
    packing = pack(halves, ranks=world, budget=1000)
    assert packing.micro_batches <= max(1, -(-2 * sum(halves) // (1000 * world)) + 1)


@given(st.lists(st.integers(1, 20_000), min_size=1, max_size=60), ranks)
def test_no_rank_does_more_than_the_others_by_more_than_one_sample(sizes: list[int], world: int) -> None:
    """Holds where the budget does not bind; then the lightest bin is always chosen."""
    packing = pack(sizes, ranks=world, budget=10**9)
    work = [sum(cost(sizes[position]) for micro in rank for position in micro) for rank in packing.ranks]
    assert max(work) - min(work) <= max(cost(size) for size in sizes) + 1e-6


def test_balance_is_by_the_square_of_the_length_not_by_tokens() -> None:
    packing = pack([20_000, *[1_000] * 20], ranks=2, budget=40_000, crossover=1_000)
    long_rank = next(rank for rank in packing.ranks if any(0 in micro for micro in rank))
    assert sum(len(micro) for micro in long_rank) == 1  # as many tokens as all others together, yet more work


def test_a_sample_over_the_budget_is_named() -> None:
    with pytest.raises(TooLong, match="sample 1 has 11 tokens, a micro-batch holds 10"):
        pack([3, 11], ranks=1, budget=10)
