"""Laws that hold whatever the numbers are, on blocks of one tensor."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pinnace.merge.masks import happens, uniform
from pinnace.merge.methods import REGISTRY, Block, Task
from pinnace.merge.methods.thinning import RandomByRank
from pinnace.merge.selection import cuts
from pinnace_operator.api.mergemethods import MergeMethod

SPARSE = ["ties", "dare_linear", "dare_ties", "della", "della_linear", "breadcrumbs", "breadcrumbs_ties"]
ROWS, COLUMNS = 24, 64
seeds = st.integers(0, 10_000)


def tensors(seed: int, count: int, *, coarse: bool = False) -> list[torch.Tensor]:
    dice = torch.Generator().manual_seed(seed)
    base = torch.randn(ROWS * COLUMNS, generator=dice)
    moves = [torch.randn(ROWS * COLUMNS, generator=dice) * 0.1 for _ in range(count)]
    if coarse:  # many equal changes
        moves = [(move * 20).round() / 16 for move in moves]
        base = (base * 4).round() / 4
    return [base, *(base + move for move in moves)]


def merge(method: str, models: list[torch.Tensor], weights: list[float], density: float = 1.0, **shared: float) -> Any:
    """One tensor, in blocks of four rows."""
    given_ = MergeMethod.model_validate({method: {}}).settings
    engine = REGISTRY[method](given_)
    own = {"weight": tuple(weights), "density": (density,) * len(weights), "gamma": (0.05,) * len(weights)}
    own["epsilon"] = (min(density, 1 - density) / 2,) * len(weights)
    task = Task(
        "tensor", (ROWS, COLUMNS), len(weights), {"lambda": 1.0} | shared, own, dict(given_), seed=3, based=True
    )
    step = 4 * COLUMNS
    blocks = [
        Block(start, models[0][start : start + step], tuple(model[start : start + step] for model in models[1:]))
        for start in range(0, ROWS * COLUMNS, step)
    ]
    found = drive(engine.survey(task), blocks)
    return torch.cat([engine.merge(block, task, found) for block in blocks])


def drive(survey: Any, blocks: list[Block]) -> Any:
    try:
        measure = next(survey)
        while True:
            results = [measure.of(block) for block in blocks]
            measure = survey.send(np.concatenate(results) if measure.join == "append" else sum(results))
    except StopIteration as end:
        return end.value


@pytest.mark.parametrize("method", SPARSE)
@given(seed=seeds, density=st.floats(0.05, 0.95))
@settings(max_examples=15, deadline=None)
def test_without_lambda_the_base_stays(method: str, seed: int, density: float) -> None:
    models = tensors(seed, 2)
    assert torch.equal(merge(method, models, [0.7, 0.4], density, **{"lambda": 0.0}), models[0])


@pytest.mark.parametrize("method", ["dare_linear", "della_linear", "breadcrumbs"])
@given(seed=seeds)
@settings(max_examples=15, deadline=None)
def test_everything_kept_is_task_arithmetic(method: str, seed: int) -> None:
    models = tensors(seed, 3)
    assert torch.equal(merge(method, models, [0.7, 0.4, -0.2]), merge("task_arithmetic", models, [0.7, 0.4, -0.2]))


@pytest.mark.parametrize("method", ["linear", "task_arithmetic", "ties", "breadcrumbs_ties"])
@given(seed=seeds, order=st.permutations(range(3)))
@settings(max_examples=15, deadline=None)
def test_the_order_of_models_does_not_matter(method: str, seed: int, order: list[int]) -> None:
    models, weights = tensors(seed, 3), [0.7, 0.4, 0.3]
    one = merge(method, models, weights, 0.5)
    two = merge(method, [models[0], *(models[1 + i] for i in order)], [weights[i] for i in order], 0.5)
    assert torch.allclose(one, two, rtol=1e-5, atol=1e-6)


@given(seed=seeds, weights=st.lists(st.floats(0.1, 1), min_size=2, max_size=4))
@settings(max_examples=25, deadline=None)
def test_identical_models_give_themselves(seed: int, weights: list[float]) -> None:
    base, model = tensors(seed, 1)
    for method in ("linear", "ties"):
        assert torch.allclose(merge(method, [base] + [model] * len(weights), weights), model, rtol=1e-5, atol=1e-6)


@given(seed=seeds, share=st.floats(0, 1), coarse=st.booleans(), descending=st.booleans())
@settings(max_examples=60, deadline=None)
def test_a_cut_is_where_sorting_would_put_it(seed: int, share: float, coarse: bool, descending: bool) -> None:
    base, model = tensors(seed, 1, coarse=coarse)
    keys = (model - base).abs()
    position = int(share * len(keys))
    step = 4 * COLUMNS
    blocks = [Block(at, None, (keys[at : at + step],)) for at in range(0, len(keys), step)]
    (cut,) = drive(cuts(lambda block: [block.models[0].view(torch.int32)], [position], descending=descending), blocks)
    above = torch.cat([cut.above(block.models[0].view(torch.int32), block.address) for block in blocks]) != 0
    order = torch.argsort(keys.flip(0) if descending else keys, stable=True)
    order = len(keys) - 1 - order if descending else order
    expected = torch.zeros(len(keys), dtype=torch.bool)
    expected[order[position:]] = True
    assert torch.equal(above, expected)


@given(start=st.integers(0, 10**6), count=st.integers(1, 300), cut=st.integers(0, 300))
@settings(max_examples=40, deadline=None)
def test_random_numbers_depend_on_the_element_only(start: int, count: int, cut: int) -> None:
    def draw(first: int, many: int) -> np.ndarray[Any, Any]:
        return uniform(seed=1, model=0, tensor="t", start=first, count=many)

    cut = min(cut, count)
    assert np.array_equal(draw(start, count), np.concatenate([draw(start, cut), draw(start + cut, count - cut)]))
    assert not np.array_equal(draw(start, 64), uniform(seed=1, model=1, tensor="t", start=start, count=64))


@pytest.mark.parametrize("probability", [1e-5, 0.1, 0.3, 0.5, 0.9])
def test_things_happen_as_often_as_they_should(probability: float) -> None:
    count = 4_000_000
    kept = -int(happens(probability, seed=2, model=0, tensor="t", start=8, count=count).sum(dtype=np.int64))
    assert abs(kept - probability * count) < 5 * (count * probability * (1 - probability)) ** 0.5


@pytest.mark.parametrize("coarse", [False, True])
def test_della_keeps_by_rank(coarse: bool) -> None:
    """Keep rates by decile of |d| in the row go evenly from density - epsilon to density + epsilon."""
    rows, n, density, epsilon = 4000, 500, 0.5, 0.1
    dice = torch.Generator().manual_seed(0)
    delta = torch.randn(rows * n, generator=dice)
    delta = (delta * 64).round() / 64 if coarse else delta
    task = Task("t", (rows, n), 1, own={"density": (density,), "epsilon": (epsilon,)}, seed=5)
    kept = RandomByRank().keep(delta, 0, Block(0, None, ()), task, None).view(rows, n) != 0
    ranks = delta.abs().view(rows, n).argsort(dim=1, stable=True).argsort(dim=1)
    rates = [float(kept[(ranks * 10 // n) == decile].float().mean()) for decile in range(10)]
    expected = [density - epsilon + 2 * epsilon * (decile + 0.5) / 10 for decile in range(10)]
    assert max(abs(one - two) for one, two in zip(rates, expected, strict=True)) < 5 * 0.5 / (rows * n / 10) ** 0.5


@given(seed=seeds)
@settings(max_examples=10, deadline=None)
def test_dare_restores_the_l1_norm(seed: int) -> None:
    base, model = tensors(seed, 1)
    changed = merge("dare_linear", [base, model], [1.0], 0.3) - base
    assert float(changed.abs().sum()) == pytest.approx(float((model - base).abs().sum()), rel=1e-4)
    assert 0.2 < float((changed != 0).float().mean()) < 0.4
