"""Everything that can be known is known before a byte is written, and every refusal says what and where."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pinnace.merge import (
    InvalidMerge,
    MergeError,
    SourceChanged,
    SourceDamaged,
    SourcesDiffer,
    SourceUnusable,
    run,
)
from pinnace.merge.local import LocalUri
from pinnace.storage.artifacts import ARTIFACT
from pinnace.storage.errors import Conflict
from pinnace.storage.manifest import MANIFEST, Manifest, now
from pinnace.storage.transfer import hash_file
from pydantic import ValidationError
from safetensors.torch import load_file, save_file

from e2e.merging import Shape, write_model
from tests.merge.merges import ROOMY, STORE, loaded, merged, planned

Change = Callable[[Path], None]
NAME = "model.layers.1.mlp.up_proj.weight"


def weights(edit: Callable[[dict[str, torch.Tensor]], Any]) -> Change:
    """Changes the tensors of a model's folder."""

    def change(folder: Path) -> None:
        tensors = load_file(folder / "model.safetensors")
        edit(tensors)
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})

    return change


def configuration(**values: Any) -> Change:
    def change(folder: Path) -> None:
        file = folder / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | values))

    return change


def cut(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def garbage(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"\xff" * 1000)


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").write_text(json.dumps({"model": {"vocab": {"a": 0}}}))


def index(folder: Path) -> None:
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {NAME: "other.safetensors"}}))


@dataclass(frozen=True)
class Bad:
    """A change to the second model, and what is said about it."""

    name: str
    change: Change
    error: type[MergeError]
    says: str


BAD = [
    Bad("missing tensor", weights(lambda t: t.pop(NAME)), SourcesDiffer, NAME),
    Bad("extra tensor", weights(lambda t: t.update(extra=torch.ones(2))), SourcesDiffer, "extra"),
    Bad("shape", weights(lambda t: t.update({NAME: torch.ones(3, 4)})), SourcesDiffer, NAME),
    Bad("architecture", configuration(architectures=["LlamaForCausalLM"]), SourcesDiffer, "LlamaForCausalLM"),
    Bad("tokenizer", tokenizer, SourcesDiffer, "another tokenizer"),
    Bad(
        "vocabulary",
        weights(lambda t: t.update({"model.embed_tokens.weight": torch.ones(99, 40)})),
        SourcesDiffer,
        "99",
    ),
    Bad("fp8", weights(lambda t: t.update({NAME: t[NAME].to(torch.float8_e4m3fn)})), SourceUnusable, "F8_E4M3"),
    Bad("cut file", cut, SourceUnusable, "model.safetensors"),
    Bad("no safetensors", garbage, SourceUnusable, "model.safetensors"),
    Bad("pickle", pickled, SourceUnusable, "pickle"),
    Bad("index without file", index, SourceUnusable, "other.safetensors"),
    Bad("not a number", weights(lambda t: t[NAME].view(-1)[5].fill_(float("nan"))), SourceDamaged, NAME),
    Bad("infinite", weights(lambda t: t[NAME].view(-1)[7].fill_(float("inf"))), SourceDamaged, NAME),
]


@pytest.fixture
def copies(families: Any, tmp_path: Path) -> list[Path]:
    """A base and two models that a test may damage."""
    return [shutil.copytree(folder, tmp_path / folder.name) for folder in families()[:3]]


def config(folders: list[Path], method: str = "ties", **own: Any) -> dict[str, Any]:
    parameters = {"weight": 0.5, "density": 0.5} | own
    return {
        "merge_method": method,
        "base_model": str(folders[0]),
        "models": [{"model": str(folder), "parameters": parameters} for folder in folders[1:]],
    }


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: bad.name)
def test_bad_models(bad: Bad, copies: list[Path], tmp_path: Path) -> None:
    bad.change(copies[2])
    with pytest.raises(bad.error, match=bad.says):
        merged(config(copies), tmp_path / "out")
    assert not list((tmp_path / "out").rglob("*.*"))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"density": 0}, "density"),
        ({"density": 1.5}, "density"),
        ({"density": 0.9, "epsilon": 0.2, "method": "della"}, "epsilon"),
        ({"method": "linear_typo"}, "linear_typo"),
    ],
    ids=str,
)
def test_bad_parameters(change: dict[str, Any], says: str, copies: list[Path]) -> None:
    method = change.pop("method", "ties")
    with pytest.raises((InvalidMerge, ValidationError), match=says):
        planned(config(copies, method, **change))


def test_weights_that_cancel_out(copies: list[Path]) -> None:
    models = [{"model": str(f), "parameters": {"weight": w}} for f, w in zip(copies[1:], (0.5, -0.5), strict=True)]
    with pytest.raises(InvalidMerge, match="sum to 0"):
        planned({"merge_method": "linear", "models": models})


def test_a_missing_base(copies: list[Path]) -> None:
    without = config(copies)
    del without["base_model"]
    with pytest.raises(InvalidMerge, match="base"):
        planned(without)


def test_stacked_layers_are_refused_by_name(copies: list[Path]) -> None:
    slices = [{"sources": [{"model": str(folder), "layer_range": [0, 2]}]} for folder in copies[:2]]
    with pytest.raises(InvalidMerge, match="slices"):
        planned({"merge_method": "linear", "slices": slices})


def test_a_source_that_changes_after_the_plan(copies: list[Path], tmp_path: Path) -> None:
    plan = planned(config(copies))
    weights(lambda tensors: tensors[NAME].add_(1))(copies[2])
    with pytest.raises(SourceChanged, match=r"m1/model\.safetensors"):
        run(plan, STORE, LocalUri.of(tmp_path / "out"), options=ROOMY)


def test_a_shard_that_is_not_what_its_manifest_says(copies: list[Path], tmp_path: Path) -> None:
    manifest = Manifest(
        kind="artifact", files=tuple(hash_file(file) for file in sorted(copies[2].iterdir())), time=now()
    )
    (copies[2] / MANIFEST).write_bytes(manifest.to_json())
    assert merged(config(copies), tmp_path / "good")
    body = bytearray((copies[2] / "model.safetensors").read_bytes())
    body[-9] ^= 1  # still a number
    (copies[2] / "model.safetensors").write_bytes(body)
    with pytest.raises(SourceDamaged, match=r"m1/model\.safetensors"):
        merged(config(copies), tmp_path / "out")
    assert not (tmp_path / "out" / MANIFEST).exists()
    assert merged(config(copies), tmp_path / "unverified", options=replace(ROOMY, verify=False))


def test_a_folder_with_other_things_is_left_alone(copies: list[Path], tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("all my work")
    with pytest.raises(Conflict, match=r"thesis\.txt"):
        merged(config(copies), tmp_path / "mine")
    assert [file.name for file in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


def test_an_artifact_is_replaced_only_when_told(copies: list[Path], tmp_path: Path) -> None:
    out = merged(config(copies), tmp_path / "out")
    before = loaded(out)
    with pytest.raises(Conflict, match="artifact"):
        merged(config(copies, weight=0.1), out)
    merged(config(copies, weight=0.1), out, options=replace(ROOMY, replace=True))
    assert not torch.equal(loaded(out)[NAME], before[NAME])
    assert (out / ARTIFACT).exists()


def test_a_head_of_its_own_beside_one_that_is_tied(families: Any, tmp_path: Path) -> None:
    """A model without lm_head uses its embedding as head: so it is merged with the head of the others."""
    tied = families()[:3]
    tensors = loaded(tied[0])
    head = tensors["model.embed_tokens.weight"] * 2
    base = write_model(tmp_path / "untied", tensors | {"lm_head.weight": head}, Shape(tied=False).config("bfloat16"))
    own = {"weight": 1.0}
    out = merged(
        {
            "merge_method": "linear",
            "models": [{"model": str(folder), "parameters": own} for folder in (base, tied[1])],
            "dtype": "float32",
            "out_dtype": "float32",
        },
        tmp_path / "out",
    )
    embedding = loaded(tied[1])["model.embed_tokens.weight"].float()
    assert torch.equal(loaded(out)["lm_head.weight"], (head.float() + embedding) / 2)
