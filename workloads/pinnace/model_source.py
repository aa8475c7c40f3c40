"""Where a job's models are: what the operator resolved, or the hub."""

from __future__ import annotations

from pathlib import Path

from pinnace_operator.api.shared import HubModel, ModelSource

from pinnace.job import ResolvedModel
from pinnace.outcome import ModelUnusable
from pinnace.storage import Checkpoints, S3Uri, Storage


def address(source: ModelSource, resolved: ResolvedModel, storage: Storage, field: str) -> str:
    """The S3 address of a model that is not on the hub; of `checkpoint: best`, the checkpoint with the best score.

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


def fetch_from_hub(model: HubModel, directory: Path, field: str, only: list[str] | None = None) -> None:
    """Downloads a model (or `only` some of its files) from the Hugging Face hub. Raises `ModelUnusable`."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError

    try:
        snapshot_download(model.repo, revision=model.revision, local_dir=directory, allow_patterns=only)
    except (RepositoryNotFoundError, RevisionNotFoundError, HfHubHTTPError) as error:
        raise ModelUnusable(f"{field}.hub: {error}") from error
