"""Every method against mergekit, through the same configuration, in float32, rounded to the output's dtype."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pinnace.merge.methods import Block
from pinnace.merge.methods.thinning import Random, RandomByRank

from e2e.oracles.mergekit import Mergekit
from tests.merge.merges import loaded, merged, planned, ulps

Families = Callable[..., list[Path]]
W = [0.6, 0.3, 0.4]


@dataclass(frozen=True)
class Case:
    """A merge method with parameters; `ulps` is how far results may be apart, in steps of bf16 and of fp32."""

    method: str
    models: int = 2
    parameters: dict[str, Any] = field(default_factory=dict)
    own: list[dict[str, Any]] = field(default_factory=list)
    base: bool = True
    bf16: int = 0
    fp32: int = 0

    def __str__(self) -> str:
        shown = "-".join(f"{key}={value}" for key, value in self.parameters.items() if not isinstance(value, list))
        densities = "".join(f"-d{one['density']}" for one in self.own[:1] if "density" in one)
        return f"{self.method}-{self.models}{densities}{'-' + shown if shown else ''}{'' if self.base else '-baseless'}"

    def config(self, folders: list[Path], **changes: Any) -> dict[str, Any]:
        """In mergekit's form."""
        models = folders[1 : 1 + self.models]
        own = self.own or [{}] * self.models
        config: dict[str, Any] = {
            "merge_method": self.method,
            "models": [{"model": str(m), "parameters": p} for m, p in zip(models, own, strict=False)],
            "parameters": self.parameters,
            "dtype": "float32",
        }
        return config | ({"base_model": str(folders[0])} if self.base else {}) | changes


def weights(*values: float, **more: Any) -> list[dict[str, Any]]:
    return [{"weight": value} | more for value in values]


CASES = [
    Case("linear", own=weights(0.6, 0.3), base=False, fp32=1),
    Case("linear", models=3, own=weights(*W), base=False, fp32=2),
    Case("linear", own=weights(0.6, -0.3), parameters={"normalize": False}, base=False, fp32=1),
    Case("task_arithmetic", own=weights(0.6, 0.3)),
    Case("task_arithmetic", models=3, own=weights(*W), parameters={"lambda": 0.7, "normalize": True}),
    Case("task_arithmetic", own=weights(0.6, 0.3), parameters={"lambda": 0}),
    Case("ties", own=weights(0.6, 0.3, density=0.5)),
    Case("ties", models=3, own=weights(*W, density=0.2), parameters={"lambda": 1.2}),
    Case("ties", models=3, own=weights(*W, density=0.05), parameters={"normalize": False}),
    Case("ties", own=weights(0.6, 0.3, density=0.5), parameters={"rescale": True}, bf16=1, fp32=8),
    Case("ties", own=weights(0.6, 0.3)),
    Case("dare_linear", own=weights(0.6, 0.3)),
    Case("dare_ties", own=weights(0.6, 0.3)),
    Case("della", own=weights(0.6, 0.3)),
    Case("della_linear", models=3, own=weights(*W)),
    Case("breadcrumbs", own=weights(0.6, 0.3, density=0.6, gamma=0.05)),
    Case("breadcrumbs", models=3, own=weights(*W, density=0.3), parameters={"lambda": 0.8}),
    Case("breadcrumbs_ties", own=weights(0.6, 0.3, density=0.6, gamma=0.02)),
    Case("breadcrumbs_ties", models=3, own=weights(*W, density=0.9, gamma=0.2)),
    Case("model_stock", bf16=1, fp32=8),
    Case("model_stock", models=3, bf16=1, fp32=8),
    Case("model_stock", models=3, parameters={"filter_wise": True}, bf16=1, fp32=8),
    Case("slerp", models=1, parameters={"t": 0.3}, bf16=1, fp32=8),
    Case("slerp", models=1, parameters={"t": 1}, bf16=1, fp32=8),
    Case("nuslerp", own=weights(0.6, 0.3), bf16=1, fp32=8),
    Case("nuslerp", own=weights(0.6, 0.3), base=False, bf16=1, fp32=8),
    Case("nuslerp", own=weights(0.6, 0.3), parameters={"nuslerp_flatten": False}, bf16=1, fp32=8),
    Case(
        "nuslerp",
        own=weights(0.6, 0.3),
        parameters={"nuslerp_flatten": False, "nuslerp_row_wise": True},
        bf16=1,
        fp32=8,
    ),
    Case("multislerp", models=3, own=weights(*W), bf16=1, fp32=8),
    Case("multislerp", models=3, own=weights(*W), base=False, bf16=1, fp32=8),
    Case("karcher", models=2, base=False, bf16=1, fp32=8),
    Case("karcher", models=3, base=False, parameters={"max_iter": 4}, bf16=1, fp32=8),
    Case("sce", bf16=1, fp32=8),
    Case("sce", models=3, parameters={"select_topk": 0.3}, bf16=1, fp32=8),
    Case("ram"),
    Case("ram", models=3, parameters={"epsilon": 0.002}),
    Case("ramplus_tl", models=3, parameters={"epsilon": 0.002, "r": 0.3, "alpha": 0.5}, fp32=2),
]
LAYOUTS = {
    "bf16-bf16": (torch.bfloat16, "bfloat16"),
    "fp32-fp32": (torch.float32, "float32"),
    "fp16-bf16": (torch.float16, "bfloat16"),
}
Deviates = Callable[[str, str, float], None]


def compare(
    case: Case, oracle: Mergekit, families: Families, deviates: Deviates, tmp_path: Path, layout: str, **more: Any
) -> None:
    stored, out = LAYOUTS[layout]
    config = case.config(families(stored), out_dtype=out)
    oracle.merge(config, tmp_path / "theirs", **more)
    ours, theirs = loaded(merged(config, tmp_path / "ours")), loaded(tmp_path / "theirs")
    # mergekit writes the head of a tied model once more.
    assert ours.keys() == theirs.keys() - {"lm_head.weight"}
    distance = {name: ulps(tensor, theirs[name]) for name, tensor in ours.items()}
    worst = max(distance, key=distance.__getitem__)
    deviates(case.method, layout, distance[worst])
    assert distance[worst] <= (case.fp32 if out == "float32" else case.bf16), (worst, distance[worst])


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_same_numbers(
    case: Case, layout: str, oracle: Mergekit, families: Families, deviates: Deviates, tmp_path: Path
) -> None:
    compare(case, oracle, families, deviates, tmp_path, layout)


RANDOM = [
    Case("dare_linear", own=weights(0.6, 0.3, density=0.4), bf16=1, fp32=8),
    Case("dare_ties", models=3, own=weights(*W, density=0.4), bf16=1, fp32=8),
    Case("dare_ties", own=weights(0.6, 0.3, density=0.7), parameters={"rescale": False}),
    Case("della", own=weights(0.6, 0.3, density=0.5, epsilon=0.1), bf16=1, fp32=8),
    Case("della_linear", models=3, own=weights(*W, density=0.4), parameters={"lambda": 1.1}, bf16=1, fp32=8),
]


@pytest.mark.parametrize("case", RANDOM, ids=str)
@pytest.mark.parametrize("layout", ["bf16-bf16", "fp32-fp32"])
def test_same_numbers_with_our_masks(
    case: Case, layout: str, oracle: Mergekit, families: Families, deviates: Deviates, tmp_path: Path
) -> None:
    """The random masks are handed to mergekit; everything else must come out the same."""
    stored, out = LAYOUTS[layout]
    masks = our_masks(case.config(families(stored), out_dtype=out), families(stored))
    np.savez(tmp_path / "masks.npz", **masks)
    compare(case, oracle, families, deviates, tmp_path, layout, masks=tmp_path / "masks.npz")


def our_masks(config: Mapping[str, Any], folders: list[Path]) -> dict[str, np.ndarray[Any, Any]]:
    """`<tensor>/<model>` → what our method keeps, as mergekit's masks."""
    plan = planned(config)
    base, *models = (loaded(folder) for folder in folders[: 1 + len(config["models"])])
    thinning = RandomByRank() if config["merge_method"].startswith("della") else Random()
    masks = {}
    for tensor in plan.tensors:
        task = tensor.task
        assert task is not None
        for number, model in enumerate(models):
            delta = (model[task.name].float() - base[task.name].float()).flatten()
            kept = []
            for start in range(0, task.size, tensor.output.step):
                part = delta[start : start + tensor.output.step]
                kept.append(thinning.keep(part, number, Block(start, None, ()), task, None) != 0)
            masks[f"{task.name}/{number}"] = torch.cat(kept).numpy()
    return masks
