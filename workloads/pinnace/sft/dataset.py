"""Records to training sequences on local disk, with an account of everything that was read.

Every record ends up as trained samples, as a counted skip (with its file and line), or in the list of bad records that
stops the job before training. The order is the order of the files; the trainer shuffles with the job's seed.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
from pinnace_operator.api.sft import LossOn, Overlong

from pinnace.chat import Conversation, MessageError, Renderer, RenderError, Sample, parse_conversation
from pinnace.records import Record

from .overlong import split

LISTED = 100
_SCHEMA = pa.schema(
    [("input_ids", pa.list_(pa.int32())), ("labels", pa.list_(pa.int32())), ("conversation", pa.int64())]
)
_FLUSH_TOKENS = 1_000_000


class BadRecords(ValueError):
    """Some records cannot be trained on. `problems` lists the first hundred (`file:line: what`) of `count`."""

    def __init__(self, problems: list[str], count: int) -> None:
        self.problems, self.count = problems, count
        shown = "\n".join(problems[:10])
        more = f"\n… and {count - 10} more (history/data-report.json lists {len(problems)})" if count > 10 else ""
        super().__init__(f"{count} bad record(s); fix or remove them:\n{shown}{more}")


@dataclass
class DataReport:
    """What became of the data. Lists hold at most a hundred places; the counts are complete."""

    records: int = 0
    samples: int = 0
    tokens: int = 0
    trained_tokens: int = 0
    longest: int = 0
    turns: int = 0
    split_conversations: int = 0
    skipped_conversations: int = 0
    skipped_turns: int = 0
    skipped: list[str] = field(default_factory=list)
    bad_records: int = 0
    bad: list[str] = field(default_factory=list)
    digest: str = ""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def _skip(self, where: str, turns: int) -> None:
        self.skipped_turns += turns
        if len(self.skipped) < LISTED:
            self.skipped.append(where)

    def _bad(self, where: str, problem: str) -> None:
        self.bad_records += 1
        if len(self.bad) < LISTED:
            self.bad.append(f"{where}: {problem}")

    def raise_if_bad(self) -> None:
        """Raises `BadRecords`."""
        if self.bad_records:
            raise BadRecords(self.bad, self.bad_records)


@dataclass(frozen=True)
class RenderPolicy:
    """How conversations become samples (`spec.data.lossOn`, `.overlong`, `spec.training.maxLength`)."""

    max_length: int
    loss_on: LossOn = LossOn.ALL_TURNS
    overlong: Overlong = Overlong.SPLIT


def check_records(records: Iterable[Record], renderer: Renderer | None = None, *, rendered: int = 50) -> DataReport:
    """Reads and checks everything without writing; the first `rendered` are also put through the template."""
    report = DataReport()
    for record, conversation in _conversations(records, report):
        report.turns += len(conversation.turns)
        if renderer is not None and report.records <= rendered:
            try:
                for index in conversation.turns:
                    renderer.texts(conversation, index)
            except RenderError as error:
                report._bad(record.where, str(error))
    if not report.records:
        report._bad("data", "there are no records")
    return report


def write_samples(records: Iterable[Record], renderer: Renderer, policy: RenderPolicy, path: Path) -> DataReport:
    """Writes the samples of all good records as an Arrow stream (`input_ids`, `labels`, `conversation`)."""
    report = DataReport()
    digest = hashlib.sha256()
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, _SCHEMA) as writer:
        rows: list[tuple[Sample, int]] = []
        waiting = 0
        for record, conversation in _conversations(records, report):
            try:
                samples = _samples(record.where, conversation, renderer, policy, report)
            except RenderError as error:
                report._bad(record.where, str(error))
                continue
            for sample in samples:
                _count(sample, report)
                digest.update(pa.array(sample.input_ids, pa.int32()).buffers()[1])
                digest.update(pa.array(sample.labels, pa.int32()).buffers()[1])
                rows.append((sample, report.records - 1))
                waiting += len(sample.input_ids)
            if waiting > _FLUSH_TOKENS:
                writer.write_batch(_batch(rows))
                rows, waiting = [], 0
        writer.write_batch(_batch(rows))
    if not report.records:
        report._bad("data", "there are no records")
    elif not report.samples and not report.bad_records:
        report._bad(
            "data", f"nothing is left to train on: all {report.records} records exceed maxLength {policy.max_length}"
        )
    report.digest = "sha256:" + digest.hexdigest()
    return report


def held_out(conversations: int, percent: int, seed: int) -> set[int]:
    """The conversations kept out of training: `percent` of them (at least one), the same for the same seed."""
    if percent == 0:
        return set()
    count = min(conversations - 1, max(1, round(conversations * percent / 100)))
    return set(random.Random(f"held-out-{seed}").sample(range(conversations), max(count, 0)))  # noqa: S311 - no secret


def _conversations(records: Iterable[Record], report: DataReport) -> Iterator[tuple[Record, Conversation]]:
    for record in records:
        report.records += 1
        if record.problem is not None:
            report._bad(record.where, record.problem)
            continue
        try:
            yield record, parse_conversation(record.value)
        except MessageError as error:
            report._bad(record.where, str(error))


def _samples(
    where: str, conversation: Conversation, renderer: Renderer, policy: RenderPolicy, report: DataReport
) -> list[Sample]:
    samples = renderer.samples(conversation, last_turn_only=policy.loss_on is LossOn.LAST_TURN)
    wanted = [turn for sample in samples for turn in sample.turns]
    longest = max(len(sample.input_ids) for sample in samples)
    if longest <= policy.max_length:
        return samples
    if policy.overlong is Overlong.FAIL:
        report._bad(
            where, f"{longest} tokens exceed maxLength {policy.max_length} (raise it, or set data.overlong: Split)"
        )
        return []
    if policy.overlong is Overlong.SKIP:
        report.skipped_conversations += 1
        report._skip(f"{where}: {longest} tokens", len(wanted))
        return []
    parts = split(renderer, conversation, wanted, policy.max_length)
    report.split_conversations += 1
    if parts.unreachable:
        report._skip(
            f"{where}: messages {parts.unreachable} do not fit {policy.max_length} tokens", len(parts.unreachable)
        )
        report.skipped_conversations += not parts.samples
    return parts.samples


def _count(sample: Sample, report: DataReport) -> None:
    report.samples += 1
    report.turns += len(sample.turns)
    report.tokens += len(sample.input_ids)
    report.trained_tokens += sum(label >= 0 for label in sample.labels)
    report.longest = max(report.longest, len(sample.input_ids))


def _batch(rows: list[tuple[Sample, int]]) -> pa.RecordBatch:
    return pa.record_batch(
        [
            pa.array([sample.input_ids for sample, _ in rows], _SCHEMA.field("input_ids").type),
            pa.array([sample.labels for sample, _ in rows], _SCHEMA.field("labels").type),
            pa.array([conversation for _, conversation in rows], pa.int64()),
        ],
        schema=_SCHEMA,
    )
