"""What a node needs before training: the model, the newest checkpoint and the rendered data, on local disk."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

from pinnace_operator.api.sft import SFTJobSpec
from pinnace_operator.api.shared import DataSource

from pinnace.chat import ChatTokenizer, Renderer, TemplateError, TokenizerError
from pinnace.outcome import InvalidData, InvalidSpec, ModelUnusable
from pinnace.records import CONFIG_MAPS, DataSourceError, read_records
from pinnace.storage import Checkpoint, NotFound, RunDirectory, Storage

from .dataset import BadRecords, DataReport, RenderPolicy, check_records, write_samples
from .scratch import Scratch

log = logging.getLogger(__name__)


def chat_template(spec: SFTJobSpec) -> str | None:
    """The template that replaces the model's own, from its ConfigMap. Raises `InvalidSpec`."""
    source = spec.data.chat_template
    if source is None:
        return None
    path = CONFIG_MAPS / source.name / source.key
    if not path.is_file():
        raise InvalidSpec(f"data.chatTemplate: ConfigMap {source.name!r} has no key {source.key!r}")
    return path.read_text()


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
