"""Options away from the defaults: what may differ between models, in what it is computed, and the papers' variants."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pinnace.merge import SourceUnusable
from pinnace_operator.api.merge import ComputeDtype, Dtype, Extra, Fp8, Missing
from pinnace_operator.api.mergemethods import MergeMethod
from safetensors.torch import save_file

from tests.merge.merges import loaded, merged, planned

NAME = "model.layers.1.mlp.up_proj.weight"
Tensors = dict[str, torch.Tensor]


@pytest.fixture
def pair(families: Any, tmp_path: Path) -> list[Path]:
    """A base, and a model that a test may change."""
    return [shutil.copytree(folder, tmp_path / folder.name) for folder in families()[:2]]


def config(pair: list[Path], method: str = "task_arithmetic", **own: float) -> dict[str, Any]:
    models = [{"model": str(pair[1]), "parameters": {"weight": 1.0, **own}}]
    return {"merge_method": method, "base_model": str(pair[0]), "models": models, "out_dtype": "float32"}


def edit(folder: Path, change: Callable[[Tensors], object]) -> None:
    tensors = loaded(folder)
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def moves(pair: list[Path], out: Path) -> tuple[Tensors, Tensors]:
    """What the merge changed of the base, and what the model did."""
    base, model = loaded(pair[0]), loaded(pair[1])
    found = {name: tensor - base[name].float() for name, tensor in loaded(out).items()}
    return found, {name: model[name].float() - base[name].float() for name in found}


def test_fp8_is_upcast(pair: list[Path], tmp_path: Path) -> None:
    edit(pair[1], lambda tensors: tensors.update({NAME: tensors[NAME].to(torch.float8_e4m3fn)}))
    out = loaded(merged(config(pair), tmp_path / "out", fp8=Fp8.UPCAST))
    assert torch.equal(out[NAME], loaded(pair[1])[NAME].float())
    edit(pair[1], lambda tensors: tensors.update({NAME: tensors[NAME].float().bfloat16()}))
    same = loaded(merged(config(pair), tmp_path / "same"))
    assert all(torch.equal(out[name], same[name]) for name in out)


def test_fp8_with_scales_is_never_upcast(pair: list[Path]) -> None:
    edit(pair[1], lambda tensors: tensors.update({NAME: tensors[NAME].to(torch.float8_e4m3fn)}))
    edit(pair[1], lambda tensors: tensors.update({f"{NAME}_scale_inv": torch.ones(1)}))
    with pytest.raises(SourceUnusable, match="with scales"):
        planned(config(pair), fp8=Fp8.UPCAST, extra_tensors=Extra.IGNORE)


def test_a_tensor_that_a_model_lacks_is_the_bases(pair: list[Path], tmp_path: Path) -> None:
    edit(pair[1], lambda tensors: tensors.pop(NAME))
    out, base, model = (
        loaded(merged(config(pair), tmp_path / "out", missing_tensors=Missing.TAKE_BASE)),
        *map(loaded, pair),
    )
    assert torch.equal(out[NAME], base[NAME].float())
    assert all(torch.equal(out[name], tensor.float()) for name, tensor in model.items())


def test_tensors_that_the_base_lacks_are_left_out(pair: list[Path], tmp_path: Path) -> None:
    edit(pair[1], lambda tensors: tensors.update({"value_head.weight": torch.ones(3, 4)}))
    plan = planned(config(pair), extra_tensors=Extra.IGNORE)
    assert "1 extra tensors are left out: value_head.weight" in " ".join(plan.notes)
    out = loaded(merged(config(pair), tmp_path / "out", extra_tensors=Extra.IGNORE))
    assert out.keys() == loaded(pair[0]).keys()


def test_float64_is_exact_to_the_last_bit(families: Any, tmp_path: Path) -> None:
    folders = families(torch.float32)[1:3]
    own = [{"weight": 1 / 3}, {"weight": 0.7}]
    models = [{"model": str(folder), "parameters": each} for folder, each in zip(folders, own, strict=True)]
    document = {"merge_method": "linear", "models": models}
    first, second = (loaded(folder) for folder in folders)
    weights = [float(format(each["weight"], ".12g")) for each in own]
    for dtype, exact in ((ComputeDtype.FP64, True), (ComputeDtype.FP32, False)):
        out = loaded(merged(document, tmp_path / dtype, compute_dtype=dtype, output_dtype=Dtype.FP32))
        mean = {
            name: ((weights[0] * first[name].double() + weights[1] * second[name].double()) / sum(weights)).float()
            for name in out
        }
        assert all(torch.equal(out[name], mean[name]) for name in out) is exact


def test_dare_divides_by_the_density_as_its_paper_does(pair: list[Path], tmp_path: Path) -> None:
    method = MergeMethod.from_manifest({"dareLinear": {"rescale": "Paper"}})
    out = merged(config(pair, "dare_linear", density=0.4), tmp_path / "out", method=method)
    found, change = moves(pair, out)
    for name, move in found.items():
        kept = move != 0
        assert torch.allclose(move[kept], change[name][kept] / 0.4, rtol=1e-3, atol=1e-6)
    everything = torch.cat([move.flatten() for move in found.values()])
    assert 0.35 < float((everything != 0).float().mean()) < 0.4 + 0.02


def test_della_divides_each_change_by_its_own_probability_as_its_paper_does(pair: list[Path], tmp_path: Path) -> None:
    method = MergeMethod.from_manifest({"dellaLinear": {"rescale": "Paper"}})
    out = merged(config(pair, "della_linear", density=0.5, epsilon=0.2), tmp_path / "out", method=method)
    found, change = (tensors[NAME] for tensors in moves(pair, out))
    columns = change.shape[1]
    ranks = change.abs().argsort(dim=1, stable=True).argsort(dim=1)
    chance = 0.3 + 0.4 * ranks / (columns - 1)
    kept = found != 0
    ratio = (change / found * 1)[kept] / chance[kept]
    # Equal changes may stand in another order, so that few have a neighbour's probability.
    assert float(((ratio - 1).abs() < 0.01).float().mean()) > 0.9
    large = chance > 0.6
    assert float(kept[large].float().mean()) > float(kept[~large].float().mean()) + 0.1
