"""From addresses to stores: `s3://…` and local folders alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pinnace_operator.api.merge import MergeJobSpec, MergeSpec
from pinnace_operator.api.mergemethods import MergeMethod

from pinnace.storage import S3Uri, Storage
from pinnace.storage.objects import ObjectStore

from .errors import InvalidMerge, unknown
from .layout import PART_BYTES
from .local import LocalStore, LocalUri
from .mergekit import Translated, is_mergekit, translate
from .plan import Plan, SourceFolders, make_plan
from .source import Folder

_JOB_FIELDS = {field.alias for name, field in MergeJobSpec.model_fields.items() if name not in MergeSpec.model_fields}
"""What a MergeJob has beside the merge itself; here it has no meaning."""
_METHODS = [str(field.alias) for field in MergeMethod.model_fields.values()]


class Places:
    """Opens addresses. S3 is only asked for when there is an `s3://` one."""

    def __init__(self, storage: Callable[[], Storage] = Storage.from_env) -> None:
        self._storage = storage
        self._s3: ObjectStore | None = None
        self._local = LocalStore()

    def locate(self, address: str) -> tuple[ObjectStore, S3Uri]:
        """Store and address."""
        if not address.startswith("s3://"):
            return self._local, LocalUri.of(Path(address))
        if self._s3 is None:
            self._s3 = self._storage().store
        return self._s3, S3Uri.parse(address)

    def folder(self, address: str) -> Folder:
        """A folder that is read."""
        return Folder(*self.locate(address))

    def source(self, address: str, adapter: str | None = None, ref: str = "model") -> SourceFolders:
        """A model, perhaps with an adapter."""
        return SourceFolders(self.folder(address), self.folder(adapter) if adapter else None, ref)


def plan_document(
    document: Mapping[str, Any], places: Places, *, part_bytes: int = PART_BYTES
) -> tuple[Plan, tuple[str, ...]]:
    """The plan of a configuration: mergekit's, or the spec of a MergeJob (or the whole resource).

    In a spec, `uri` may be a local folder too, and numbers need no quotes. Returns the plan and notes.
    """
    if is_mergekit(document):
        found: Translated = translate(document)
        base = places.source(*found.base, ref="base") if found.base else None
        models = [places.source(*model) for model in found.models]
        return make_plan(found.spec, base=base, models=models, part_bytes=part_bytes), found.notes
    spec_of_job = document.get("spec", document) if document.get("kind") == "MergeJob" else document
    body = {name: value for name, value in spec_of_job.items() if name not in _JOB_FIELDS}
    method = body.get("method")
    strange = [name for name in method if name not in _METHODS] if isinstance(method, Mapping) else []
    if strange:
        raise unknown("method", strange[0], _METHODS)
    addresses: dict[str, str] = {}
    spec = MergeSpec.from_manifest(_quoted(_without_paths(body, addresses)))
    sources = [_address(model.source.uri, addresses) for model in spec.models]
    adapters = [_address(model.adapter.uri, addresses) if model.adapter else None for model in spec.models]
    plan = make_plan(
        spec,
        base=places.source(_address(spec.base.uri, addresses), ref="base") if spec.base else None,
        models=[places.source(source, adapter) for source, adapter in zip(sources, adapters, strict=True)],
        part_bytes=part_bytes,
    )
    if spec.sweep:
        return plan, ("sweep: only a MergeJob searches; this is the merge without it",)
    return plan, ()


def _address(uri: str | None, addresses: Mapping[str, str]) -> str:
    if uri is None:
        raise InvalidMerge("only sources with `uri` can be merged here: `from` and `hub` need the operator")
    return addresses.get(uri, uri)


def _without_paths(value: Any, addresses: dict[str, str]) -> Any:
    """Local folders become addresses that the spec allows; `addresses` leads back."""
    if isinstance(value, list):
        return [_without_paths(one, addresses) for one in value]
    if not isinstance(value, dict):
        return value
    found = {key: _without_paths(one, addresses) for key, one in value.items()}
    uri = found.get("uri")
    if isinstance(uri, str) and not uri.startswith("s3://"):
        found["uri"] = f"s3://local/{len(addresses)}"
        addresses[found["uri"]] = uri
    return found


def _quoted(value: Any) -> Any:
    """Decimals as the API writes them."""
    if isinstance(value, float):
        return format(value, ".12g")
    if isinstance(value, list):
        return [_quoted(one) for one in value]
    if isinstance(value, dict):
        return {key: _decimal(key, one) for key, one in value.items()}
    return value


def _decimal(key: str, value: Any) -> Any:
    if isinstance(value, int) and not isinstance(value, bool) and key not in {"seed", "maxIterations"}:
        return value if key in {"memoryLimit", "shardSize"} else str(value)
    if key == "values" and isinstance(value, list):
        return [str(one) if isinstance(one, int) else _quoted(one) for one in value]
    return _quoted(value)
