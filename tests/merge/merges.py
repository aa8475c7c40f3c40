"""How the tests run a merge of local folders, and compare weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pinnace.merge import Folder, RunOptions, SourceFolders, make_plan, run
from pinnace.merge.local import LocalStore, LocalUri
from pinnace.merge.mergekit import translate
from pinnace.merge.plan import Plan
from safetensors.torch import load_file

STORE = LocalStore()
#: Buffers of a size of their own: the spec's memoryLimit is the whole process's, and tests share theirs with torch.
ROOMY = RunOptions(buffers=300 << 20)


def local(folder: str | Path, adapter: str | Path | None = None) -> SourceFolders:
    """A source in a local folder."""
    extra = Folder(STORE, LocalUri.of(Path(adapter))) if adapter else None
    return SourceFolders(Folder(STORE, LocalUri.of(Path(folder))), extra)


def planned(config: Mapping[str, Any], **changes: Any) -> Plan:
    """The plan of a configuration in mergekit's form."""
    found = translate(config)
    return make_plan(
        found.spec.model_copy(update=changes),
        base=local(*found.base) if found.base else None,
        models=[local(*model) for model in found.models],
    )


def merged(config: Mapping[str, Any], output: Path, *, options: RunOptions | None = None, **changes: Any) -> Path:
    """Merges into a local folder."""
    run(planned(config, **changes), STORE, LocalUri.of(output), options=options or ROOMY)
    return output


def loaded(folder: Path) -> dict[str, torch.Tensor]:
    """All weights of a folder."""
    found: dict[str, torch.Tensor] = {}
    for file in sorted(folder.glob("*.safetensors")):
        found |= load_file(file)
    return found


def ulps(one: torch.Tensor, two: torch.Tensor) -> float:
    """The greatest distance between two tensors of one dtype, in units in the last place.

    Of the element, or of the tensor's usual size where the element is smaller: what is left when large numbers cancel
    has their error.
    """
    assert one.dtype == two.dtype
    assert one.shape == two.shape
    if not one.numel():
        return 0.0
    first, second = one.double(), two.double()
    usual = float(first.square().mean().sqrt())
    size = torch.maximum(first.abs(), second.abs()).clamp(min=max(usual, 1e-30))
    unit = 2.0 ** torch.floor(torch.log2(size)) * torch.finfo(one.dtype).eps
    return float(((first - second).abs() / unit).max())
