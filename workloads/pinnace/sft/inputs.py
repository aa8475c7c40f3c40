"""What a node needs before training: the model, the newest checkpoint and the rendered data, on local disk."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterable
from pathlib import Path

from pinnace_operator.api.sft import SFTJobSpec
from pinnace_operator.api.shared import DataSource

from pinnace.chat import TOKENIZER_FILES, ChatTokenizer, Renderer, TemplateError, TokenizerError
from pinnace.model_source import address, fetch_from_hub
from pinnace.outcome import InvalidData, InvalidSpec, ModelUnusable
from pinnace.records import CONFIG_MAPS, DataSourceError, read_records
from pinnace.storage import Checkpoint, DamagedFile, Incomplete, NotFound, RunDirectory, S3Uri, Storage

from .dataset import BadRecords, DataReport, RenderPolicy, check_records, write_samples
from .job import Job
from .scratch import Scratch

log = logging.getLogger(__name__)
_INDEX = "model.safetensors.index.json"


def chat_template(spec: SFTJobSpec) -> str | None:
    """The template that replaces the model's own, from its ConfigMap. Raises `InvalidSpec`."""
    source = spec.data.chat_template
    if source is None:
        return None
    path = CONFIG_MAPS / source.name / source.key
    if not path.is_file():
        raise InvalidSpec(f"data.chatTemplate: ConfigMap {source.name!r} has no key {source.key!r}")
    return path.read_text()


def fetch_model(job: Job, storage: Storage, directory: Path) -> None:
    """Downloads the whole model and checks that it is complete. Raises `ModelUnusable`."""
    spec, digest = job.spec, job.model.digest
    try:
        if spec.model.hub is not None:
            fetch_from_hub(spec.model.hub, directory, "spec.model")
        elif digest is not None:
            storage.fetch(address(job.spec.model, job.model, storage, "spec.model"), directory, digest)
        else:
            _fetch_any(storage, address(job.spec.model, job.model, storage, "spec.model"), directory)
    except (NotFound, Incomplete, DamagedFile) as error:
        raise ModelUnusable(f"spec.model: {error}") from error
    check_model(directory, {path.name for path in directory.iterdir()})


def fetch_tokenizer(job: Job, storage: Storage, directory: Path) -> None:
    """Downloads what checking the data needs and looks whether the weights are there. Raises `ModelUnusable`."""
    if job.spec.model.hub is not None:
        fetch_from_hub(job.spec.model.hub, directory, "spec.model", [*TOKENIZER_FILES, _INDEX])
        return
    folder = S3Uri.parse(address(job.spec.model, job.model, storage, "spec.model"))
    names = {folder.relative(each.uri) for each in storage.list(folder)}
    if not names:
        raise ModelUnusable(f"spec.model: nothing is stored at {folder}; check the address")
    directory.mkdir(parents=True, exist_ok=True)
    for name in names & {*TOKENIZER_FILES, _INDEX}:
        with storage.open(folder / name) as source, (directory / name).open("wb") as target:
            shutil.copyfileobj(source, target)
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
        raise ModelUnusable("spec.model: config.json names no `architectures`, so no trainer can build it")
    if missing := sorted(shards - present):
        raise ModelUnusable(
            f"spec.model lacks {', '.join(missing[:3])}; only safetensors are read: upload the whole folder"
        )


def renderer(directory: Path, template: str | None) -> Renderer:
    """Raises `ModelUnusable`."""
    try:
        return Renderer(ChatTokenizer.from_directory(directory, chat_template=template))
    except (TokenizerError, TemplateError) as error:
        raise ModelUnusable(f"spec.model: {error}") from error


def check_data(spec: SFTJobSpec, storage: Storage, rendering: Renderer | None) -> dict[str, DataReport]:
    """Reads all data once without keeping it. Raises `InvalidData`; the reports are attached as `reports`."""
    try:
        reports = {
            name: check_records(read_records(source, storage), rendering) for name, source in _sources(spec).items()
        }
    except (DataSourceError, NotFound) as error:
        raise InvalidData(f"spec.data: {error}") from error
    return reports


def write_data(spec: SFTJobSpec, storage: Storage, rendering: Renderer, directory: Path) -> dict[str, DataReport]:
    """Renders all data to `<name>.arrow`. Raises `InvalidData` for what cannot be read at all."""
    policy = RenderPolicy(spec.training.max_length, spec.data.loss_on, spec.data.overlong)
    directory.mkdir(parents=True, exist_ok=True)
    try:
        return {
            name: write_samples(read_records(source, storage), rendering, policy, directory / f"{name}.arrow")
            for name, source in _sources(spec).items()
        }
    except (DataSourceError, NotFound) as error:
        raise InvalidData(f"spec.data: {error}") from error


def publish_reports(run: RunDirectory, reports: dict[str, DataReport]) -> None:
    """Writes history/data-report.json, then raises `InvalidData` if any record is bad."""
    body = {name: report.to_json() for name, report in reports.items()}
    run.write_history("data-report.json", json.dumps(body, indent=2).encode())
    for name, report in reports.items():
        try:
            report.raise_if_bad()
        except BadRecords as error:
            raise InvalidData(f"data.{name}: {error}") from error


def restore(run: RunDirectory, scratch: Scratch) -> Checkpoint | None:
    """Downloads the newest valid checkpoint's training state; None if the run starts from the beginning."""
    landing = scratch.root / "restored"
    checkpoint = run.checkpoints.restore(landing, only=("state",))
    for skipped in run.checkpoints.damaged:
        log.warning("checkpoint %d is skipped: %s", skipped.step, skipped.reason)
    if checkpoint is not None:
        shutil.move(landing / "state", scratch.resume)
    return checkpoint


def _sources(spec: SFTJobSpec) -> dict[str, DataSource]:
    sources = {"train": spec.data.train}
    if spec.data.eval is not None:
        sources["eval"] = spec.data.eval
    return sources


def _fetch_any(storage: Storage, uri: str, directory: Path) -> None:
    try:
        storage.fetch(uri, directory)
    except Incomplete:
        # A folder that a person uploaded with another tool has no manifest; what is missing shows in `check_model`.
        folder = S3Uri.parse(uri)
        for each in storage.list(folder):
            target = directory / folder.relative(each.uri)
            target.parent.mkdir(parents=True, exist_ok=True)
            with storage.open(each.uri) as source, target.open("wb") as file:
                shutil.copyfileobj(source, file, 8 << 20)
