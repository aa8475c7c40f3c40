"""A job's model on local disk: from S3, by an artifact's manifest or as somebody uploaded it, or from the hub."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from pathlib import Path

from pinnace_operator.api.shared import HubModel, ModelSource

from pinnace.chat import TOKENIZER_FILES
from pinnace.job import ResolvedModel
from pinnace.outcome import ModelUnusable
from pinnace.storage import Checkpoints, DamagedFile, Incomplete, NotFound, S3Uri, Storage

_INDEX = "model.safetensors.index.json"


def fetch_model(source: ModelSource, resolved: ResolvedModel, storage: Storage, directory: Path) -> None:
    """Downloads the whole model and checks that it is complete. Raises `ModelUnusable`."""
    try:
        if source.hub is not None:
            fetch_from_hub(source.hub, directory)
        elif resolved.digest is not None:
            storage.fetch(address(source, resolved, storage), directory, resolved.digest)
        else:
            _fetch_any(storage, address(source, resolved, storage), directory)
    except (NotFound, Incomplete, DamagedFile) as error:
        raise ModelUnusable(f"spec.model: {error}") from error
    check_model(directory, {path.name for path in directory.iterdir()})


def fetch_tokenizer(source: ModelSource, resolved: ResolvedModel, storage: Storage, directory: Path) -> None:
    """Downloads the small files and looks whether the weights are there. Raises `ModelUnusable`."""
    if source.hub is not None:
        fetch_from_hub(source.hub, directory, only=[*TOKENIZER_FILES, _INDEX])
        return
    folder = S3Uri.parse(address(source, resolved, storage))
    names = {folder.relative(each.uri) for each in storage.list(folder)}
    if not names:
        raise ModelUnusable(f"spec.model: nothing is stored at {folder}; check the address")
    directory.mkdir(parents=True, exist_ok=True)
    for name in names & {*TOKENIZER_FILES, _INDEX}:
        with storage.open(folder / name) as stored, (directory / name).open("wb") as target:
            shutil.copyfileobj(stored, target)
    check_model(directory, names)


def check_model(directory: Path, names: Iterable[str]) -> None:
    """`names` are all files of the model, of which `directory` has at least the small ones. Raises `ModelUnusable`."""
    present = set(names)
    try:
        config = json.loads((directory / "config.json").read_text())
        shards = {"model.safetensors"}
        if "model.safetensors" not in present and (directory / _INDEX).is_file():
            shards = set(json.loads((directory / _INDEX).read_text())["weight_map"].values())
    except (OSError, ValueError, KeyError) as error:
        raise ModelUnusable(
            f"spec.model has no readable config.json or weight index ({error}); upload it again"
        ) from error
    if not config.get("architectures"):
        raise ModelUnusable("spec.model: config.json names no `architectures`, so nothing can build it")
    if missing := sorted(shards - present):
        raise ModelUnusable(
            f"spec.model lacks {', '.join(missing[:3])}; only safetensors are read: upload the whole folder"
        )


def address(source: ModelSource, resolved: ResolvedModel, storage: Storage, field: str = "spec.model") -> str:
    """Where in S3 a model is that is not on the hub; of `checkpoint: best`, the best one that is there now.

    Args:
        field: of the spec, for messages.

    Raises:
        ModelUnusable: there is none.
    """
    uri = resolved.uri or source.uri
    if uri is None:
        raise ModelUnusable(f"{field}.from was not resolved to an address; this is a fault of the operator")
    if resolved.checkpoint == "best":
        best = Checkpoints(storage.transfer, S3Uri.parse(uri)).best()
        if best is None:
            raise ModelUnusable(f"{field}.from.checkpoint: {uri} has no complete checkpoint; use the output instead")
        return f"{best.uri}/model"
    return str(uri)


def _fetch_any(storage: Storage, uri: str, directory: Path) -> None:
    try:
        storage.fetch(uri, directory)
    except Incomplete:
        # A folder that a person uploaded with another tool has no manifest; what is missing shows in `check_model`.
        folder = S3Uri.parse(uri)
        for each in storage.list(folder):
            target = directory / folder.relative(each.uri)
            target.parent.mkdir(parents=True, exist_ok=True)
            with storage.open(each.uri) as stored, target.open("wb") as file:
                shutil.copyfileobj(stored, file, 8 << 20)


def fetch_from_hub(model: HubModel, directory: Path, field: str = "spec.model", only: list[str] | None = None) -> None:
    """Downloads a model (or `only` some of its files) from the Hugging Face hub. Raises `ModelUnusable`."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError

    try:
        snapshot_download(model.repo, revision=model.revision, local_dir=directory, allow_patterns=only)
    except (RepositoryNotFoundError, RevisionNotFoundError, HfHubHTTPError) as error:
        raise ModelUnusable(f"{field}.hub: {error}") from error
