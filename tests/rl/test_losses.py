"""Every loss equals its formula written again here, has the gradient it claims, and agrees with TRL's own code."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pinnace.rl.loss import CORRECTIONS, LOSSES, Loss, Tokens, corrected, with_kl
from pinnace.rl.loss.correction import geometric_mask, icepop, off_policy_mask, tis
from pinnace.rl.loss.decoupled import decoupled
from pinnace.rl.loss.gspo import gspo
from torch import Tensor


def tokens(seed: int = 0, *, batch: int = 3, length: int = 7, prox: bool = True, spread: float = 0.3) -> Tokens:
    """Float64 tokens, with rubbish wherever the mask is 0."""
    dice = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=dice, dtype=torch.float64)

    behaviour = -normal(batch, length).abs() - 0.1
    mask = (torch.rand(batch, length, generator=dice) > 0.3).double()
    mask[:, 1] = 1
    near = behaviour + spread * normal(batch, length)
    advantage = normal(batch, 1).expand(batch, length).clone()
    rubbish = torch.where(mask > 0, 0.0, 500.0)
    return Tokens(
        logp=(near + rubbish).requires_grad_(),
        behaviour_logp=behaviour - rubbish,
        advantage=advantage,
        mask=mask,
        prox_logp=behaviour + 0.2 * normal(batch, length) + rubbish if prox else None,
        reference_logp=behaviour + spread * normal(batch, length) - rubbish,
    )


# Formulas token by token in plain Python, written from the papers; `row` holds a sequence's trained tokens.
Row = list[dict[str, float]]


def clip(value: float, low: float, high: float) -> float:
    return min(max(value, low), high)


def f_grpo(row: Row) -> list[float]:
    out = []
    for t in row:
        r = math.exp(t["logp"] - t["old"])
        out.append(-min(r * t["a"], clip(r, 0.8, 1.28) * t["a"]))
    return out


def f_gspo(row: Row) -> list[float]:
    s = math.exp(sum(t["logp"] - t["old"] for t in row) / len(row))
    return [-min(s * t["a"], clip(s, 1 - 3e-4, 1 + 4e-4) * t["a"]) for t in row]


def f_cispo(row: Row) -> list[float]:
    return [-min(math.exp(t["logp"] - t["old"]), 5.0) * t["a"] * t["logp"] for t in row]


def f_minirl(row: Row) -> list[float]:
    out = []
    for t in row:
        r = math.exp(t["logp"] - t["old"])
        masked = (t["a"] > 0 and r > 1.28) or (t["a"] < 0 and r < 0.8)
        out.append(0.0 if masked else -math.exp(t["logp"] - t["mu"]) * t["a"] * t["logp"])
    return out


def f_decoupled(row: Row) -> list[float]:
    weights = [math.exp(t["old"] - t["mu"]) for t in row]
    return [weight * loss if weight <= 5.0 else 0.0 for weight, loss in zip(weights, f_grpo(row), strict=True)]


FORMULAS: dict[str, Callable[[Row], list[float]]] = {
    "grpo": f_grpo, "dr-grpo": f_grpo, "gspo": f_gspo, "cispo": f_cispo, "minirl": f_minirl,
    "decoupled-ppo": f_decoupled,
}  # fmt: skip


def rows(made: Tokens) -> list[tuple[list[int], Row]]:
    """For each sequence the trained positions, and what stands there."""
    out = []
    for b in range(made.mask.shape[0]):
        at = [t for t in range(made.mask.shape[1]) if made.mask[b, t] > 0]
        out.append((at, [
            {"logp": made.logp[b, t].item(), "old": made.old_logp[b, t].item(), "mu": made.behaviour_logp[b, t].item(),
             "a": made.advantage[b, t].item()}
            for t in at
        ]))  # fmt: skip
    return out


@pytest.mark.parametrize("prox", [True, False])
@pytest.mark.parametrize("name", LOSSES)
@given(seed=st.integers(0, 10_000), spread=st.sampled_from([0.01, 0.3, 2.0]))
@settings(max_examples=20, deadline=None)
def test_every_loss_equals_its_formula(name: str, prox: bool, seed: int, spread: float) -> None:
    made = tokens(seed, prox=prox or name == "decoupled-ppo", spread=spread)
    loss = LOSSES[name](made).loss
    for b, (at, row) in enumerate(rows(made)):
        assert [loss[b, t].item() for t in at] == pytest.approx(FORMULAS[name](row), rel=1e-6, abs=1e-6)
    assert (loss * (1 - made.mask)).abs().sum() == 0


def gradient(loss: Loss, made: Tokens, weights: Tensor) -> Tensor:
    leaf = made.logp.detach().clone().requires_grad_()
    (loss(replace(made, logp=leaf)).loss * weights).sum().backward()
    assert leaf.grad is not None
    return leaf.grad


def expected_gradient(name: str, made: Tokens) -> Tensor:
    """d loss_t / d logp_t by hand: coefficient · ∇logp, with the coefficient each paper states."""
    logp, old, mu, a = made.logp.detach(), made.old_logp, made.behaviour_logp, made.advantage
    r = torch.where(made.mask > 0, logp - old, 0.0).exp()
    frozen = ((a > 0) & (r > 1.28)) | ((a < 0) & (r < 0.8))
    if name in ("grpo", "dr-grpo"):
        out = torch.where(frozen, 0.0, -r * a)
    elif name == "cispo":
        out = -r.clamp(max=5.0) * a
    elif name == "minirl":
        out = torch.where(frozen, 0.0, -torch.where(made.mask > 0, logp - mu, 0.0).exp() * a)
    elif name == "decoupled-ppo":
        weight = torch.where(made.mask > 0, old - mu, 0.0).exp()
        out = torch.where(frozen | (weight > 5), 0.0, -weight * r * a)
    else:
        mean = (torch.where(made.mask > 0, logp - old, 0.0) * made.mask).sum(-1, keepdim=True) / made.mask.sum(
            -1, keepdim=True
        )
        s = mean.exp().expand_as(a)
        out = torch.where(((a > 0) & (s > 1 + 4e-4)) | ((a < 0) & (s < 1 - 3e-4)), 0.0, -s * a)
    return out * made.mask


@pytest.mark.parametrize("name", LOSSES)
@given(seed=st.integers(0, 10_000))
@settings(max_examples=15, deadline=None)
def test_every_gradient_is_the_coefficient_its_paper_states(name: str, seed: int) -> None:
    made = tokens(seed)
    ones = torch.ones_like(made.mask)
    assert torch.allclose(gradient(LOSSES[name], made, ones), expected_gradient(name, made), atol=1e-9)


@pytest.mark.parametrize("loss", [LOSSES["grpo"], LOSSES["decoupled-ppo"], with_kl(LOSSES["grpo"], coefficient=0.1)])
def test_losses_without_a_stopped_gradient_pass_gradcheck(loss: Loss) -> None:
    made = tokens(3, spread=0.05)  # away from the corners of the clip, where there is no derivative
    leaf = made.logp.detach().clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda logp: loss(replace(made, logp=logp)).loss, (leaf,))


def test_gspo_has_the_gradient_of_the_sequence_ratio() -> None:
    """Against finite differences of -s·A itself, one sequence, whatever way it is written."""
    made = tokens(5, batch=1, spread=1e-4)
    n = made.mask.sum()

    def surrogate(logp: Tensor) -> Tensor:
        mean = (torch.where(made.mask > 0, logp - made.old_logp, 0.0) * made.mask).sum() / n
        return -(mean.exp() * made.advantage[0, 0])

    leaf = made.logp.detach().clone().requires_grad_()
    surrogate(leaf).backward()
    wide = partial(gspo, clip_low=0.9, clip_high=9.0)
    assert torch.allclose(gradient(wide, made, torch.ones_like(made.mask) / n), leaf.grad, atol=1e-12)


def test_f16_gspo_raises_the_probability_of_good_sequences_and_batches_do_not_mix() -> None:
    """AgentRL's coefficient logp/sg(logp) had the gradient ∇logp/logp: reversed, NaN at 0, and B>1 mixed rows."""
    made = tokens(1, batch=4, spread=0.0, prox=False)
    made = replace(made, advantage=torch.ones_like(made.mask), logp=made.logp.detach().clone())
    made.logp[0] = made.behaviour_logp[0] = 0.0  # probability 1: log-prob exactly 0
    whole = gradient(gspo, made, torch.ones_like(made.mask))
    assert torch.isfinite(whole).all()
    assert (whole[made.mask > 0] < 0).all()  # descent raises logp where the advantage is positive
    for b in range(4):
        alone = Tokens(
            logp=made.logp[b], behaviour_logp=made.behaviour_logp[b], advantage=made.advantage[b], mask=made.mask[b]
        )
        assert torch.allclose(gradient(gspo, alone, torch.ones_like(alone.mask)), whole[b])


def test_f17_the_clip_share_counts_clipped_tokens() -> None:
    """AgentRL logged the share of tokens that were not clipped."""
    ratio = torch.tensor([0.5, 1.0, 1.5, 1.5, 9.0], dtype=torch.float64)
    made = Tokens(
        logp=ratio.log(), behaviour_logp=torch.zeros(5, dtype=torch.float64),
        advantage=torch.tensor([-1.0, 1, 1, -1, 1]), mask=torch.tensor([1.0, 1, 1, 1, 0]),
    )  # fmt: skip
    sums = LOSSES["grpo"](made).sums
    assert (sums["clipped_low"], sums["clipped_high"]) == (1, 1)
    assert sums["ratio"] == pytest.approx(0.5 + 1 + 1.5 + 1.5)


@pytest.mark.parametrize("name", LOSSES)
@given(seed=st.integers(0, 10_000), cut=st.integers(1, 4))
@settings(max_examples=10, deadline=None)
def test_splitting_a_batch_changes_neither_loss_nor_gradient_nor_metrics(name: str, seed: int, cut: int) -> None:
    made = tokens(seed, batch=5)
    loss = corrected(LOSSES[name], list(CORRECTIONS.values()))
    weights = torch.rand(5, 7, dtype=torch.float64)

    def part(start: int, end: int) -> Tokens:
        return Tokens(**{field: value[start:end] for field, value in vars(made).items()})

    whole, first, second = loss(made), loss(part(0, cut)), loss(part(cut, 5))
    assert torch.equal(whole.loss, torch.cat([first.loss, second.loss]))
    for metric, value in whole.sums.items():
        assert value.item() == pytest.approx((first.sums[metric] + second.sums[metric]).item())
    split = [gradient(loss, part(0, cut), weights[:cut]), gradient(loss, part(cut, 5), weights[cut:])]
    assert torch.allclose(gradient(loss, made, weights), torch.cat(split), atol=1e-12)


@pytest.mark.parametrize("name", LOSSES)
def test_padding_and_context_do_not_matter(name: str) -> None:
    made = tokens(2)
    at = made.mask[0] > 0
    alone = Tokens(**{field: value[0][at] for field, value in vars(made).items()})
    assert torch.allclose(LOSSES[name](alone).loss, LOSSES[name](made).loss[0][at])


def test_corrections_equal_their_formulas() -> None:
    made = tokens(4, spread=1.0)
    ratio = torch.where(made.mask > 0, made.prox_logp - made.behaviour_logp, 0.0).exp()  # type: ignore[operator]
    assert torch.allclose(icepop(made, low=0.9, high=1.2)[0], ratio * ((ratio >= 0.9) & (ratio <= 1.2)))
    assert torch.allclose(tis(made, cap=1.1)[0], ratio.clamp(max=1.1))
    means = (ratio.log() * made.mask).sum(-1, keepdim=True) / made.mask.sum(-1, keepdim=True)
    assert torch.equal(
        geometric_mask(made, low=0.95, high=1.05)[0].bool(), (means >= math.log(0.95)) & (means <= math.log(1.05))
    )
    inside = icepop(made, low=0.9, high=1.2)[1]["icepop_masked"]
    assert inside == (((ratio < 0.9) | (ratio > 1.2)) & (made.mask > 0)).sum()


def test_opsm_drops_only_punishment_of_what_is_no_longer_done() -> None:
    zero, one = torch.zeros(3, 2), torch.ones(3, 2)
    made = Tokens(
        logp=torch.tensor([[-3.0, -3], [-3, -3], [-1, -1]]), behaviour_logp=-one,
        advantage=torch.tensor([[-1.0], [1], [-1]]).expand(3, 2), mask=one,
    )  # fmt: skip
    factor, sums = off_policy_mask(made, threshold=0.5)
    assert torch.equal(factor * one, torch.stack([zero[0], one[0], one[0]]))
    assert sums["opsm_masked"] == 2


def test_kl_is_zero_at_the_reference_and_positive_elsewhere() -> None:
    made = tokens(6)
    term = with_kl(LOSSES["grpo"], coefficient=1.0)
    at_home = replace(made, reference_logp=made.logp.detach())
    assert torch.allclose(term(at_home).loss, LOSSES["grpo"](made).loss)
    assert (term(made).loss - LOSSES["grpo"](made).loss)[made.mask > 0].min() > 0


def test_a_loss_that_lacks_its_input_says_what_to_do() -> None:
    with pytest.raises(ValueError, match="recompute log-probs"):
        decoupled(tokens(prox=False))
    with pytest.raises(ValueError, match="name a reference model"):
        with_kl(LOSSES["grpo"], coefficient=0.1)(replace(tokens(), reference_logp=None))


# --- TRL's own code as an oracle ---


class _Metrics(dict[str, Any]):
    def __missing__(self, key: str) -> list[float]:
        return self.setdefault(key, [])


def trl_loss(
    made: Tokens, loss_type: str, level: str, beta: float = 0.0, opsm: float | None = None
) -> tuple[Tensor, Tensor]:
    """The loss of `GRPOTrainer._compute_loss` and its gradient, given our log-probs instead of a model's."""
    from trl import GRPOTrainer

    leaf = made.logp.detach().clone().requires_grad_()
    cap = 5.0 if loss_type == "cispo" else 0.28
    low, high = (3e-4, 4e-4) if level == "sequence" else (0.2, cap)
    me = SimpleNamespace(
        _get_per_token_logps_and_entropies=lambda *_, **__: (leaf, torch.zeros_like(leaf), None),
        aux_loss_enabled=False, top_entropy_quantile=1.0, off_policy_mask_threshold=opsm,
        importance_sampling_level=level,
        get_off_policy_mask=GRPOTrainer.get_off_policy_mask, beta=beta, loss_type=loss_type, epsilon_low=low,
        epsilon_high=high, use_vllm=False, vllm_importance_sampling_correction=False, _entropy_bonus_enabled=False,
        args=SimpleNamespace(delta=None, use_bias_correction_kl=False, steps_per_generation=1),
        model=SimpleNamespace(training=True), current_gradient_accumulation_steps=1, max_completion_length=11,
        accelerator=SimpleNamespace(num_processes=1, gather=lambda x: x, reduce=lambda x, reduction: x),
        _metrics={"train": _Metrics()},
    )  # fmt: skip
    shape = made.mask.shape
    ids = torch.zeros(shape, dtype=torch.long)
    inputs = {
        "prompt_ids": ids, "prompt_mask": ids, "completion_ids": ids, "completion_mask": made.mask,
        "advantages": made.advantage[:, 0], "old_per_token_logps": made.old_logp,
        "ref_per_token_logps": made.reference_logp,
        "num_items_in_batch": made.mask.sum(),
    }  # fmt: skip
    loss = GRPOTrainer._compute_loss(me, None, inputs)
    loss.backward()
    assert leaf.grad is not None
    return loss.detach(), leaf.grad


def reduced(made: Tokens, loss: Loss, weights: Tensor) -> tuple[Tensor, Tensor]:
    return (loss(made).loss * weights).sum().detach(), gradient(loss, made, weights)


@pytest.mark.slow  # importing TRL takes longer than the comparison
@pytest.mark.skipif(importlib.util.find_spec("trl") is None, reason="TRL is part of the extra `sft`")
@pytest.mark.parametrize(
    ("ours", "loss_type", "level", "normalisation"),
    [
        ("grpo", "grpo", "token", "sequence"),
        ("grpo", "dapo", "token", "token"),
        ("dr-grpo", "dr_grpo", "token", "constant"),
        ("gspo", "grpo", "sequence", "sequence"),
        ("cispo", "cispo", "token", "token"),
    ],
)
def test_losses_equal_trl(ours: str, loss_type: str, level: str, normalisation: str) -> None:
    for seed in range(5):
        # TRL multiplies by the mask and so needs finite log-probs outside it too: no rubbish there.
        made = tokens(seed, prox=False)
        clean = {
            k: None if v is None else torch.where(made.mask > 0, v.detach(), -1.0)
            for k, v in vars(made).items()
            if k not in ("mask", "advantage")
        }
        made = replace(made, **clean)
        n = made.mask.sum(-1, keepdim=True)
        weights = {
            "sequence": 1 / (n * len(n)), "token": 1 / n.sum(), "constant": torch.tensor(1 / (len(n) * 11)),
        }[normalisation].expand_as(made.mask)  # fmt: skip
        for beta, opsm in ((0.0, None), (0.1, None), (0.0, 0.05)):
            theirs, their_gradient = trl_loss(made, loss_type, level, beta, opsm)
            loss = LOSSES[ours]
            loss = corrected(loss, [partial(off_policy_mask, threshold=opsm)]) if opsm else loss
            loss = with_kl(loss, coefficient=beta) if beta else loss
            loss_here, gradient_here = reduced(made, loss, weights)
            assert loss_here.item() == pytest.approx(theirs.item(), abs=1e-6)
            assert torch.allclose(gradient_here, their_gradient, atol=1e-6)
