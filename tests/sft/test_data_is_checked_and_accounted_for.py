"""Every record is trained, counted as skipped with its place, or named as bad before training starts."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset
from pinnace.chat import ChatTokenizer, Renderer
from pinnace.records import DataSourceError, Record, read_records
from pinnace.sft.dataset import BadRecords, RenderPolicy, check_records, held_out, write_samples
from pinnace.tiny.model import write_tiny_model
from pinnace.tiny.task import arithmetic_tools
from pinnace_operator.api.sft import LossOn, Overlong
from pinnace_operator.api.shared import DataSource

GOOD = {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]}


@pytest.fixture(scope="module")
def renderer(tmp_path_factory: pytest.TempPathFactory) -> Renderer:
    folder = tmp_path_factory.mktemp("tiny")
    write_tiny_model(folder)
    return Renderer(ChatTokenizer.from_directory(folder))


def messages(*parts: Any) -> str:
    return json.dumps({"messages": list(parts)})


USER = {"role": "user", "content": "u"}
ANSWER = {"role": "assistant", "content": "a"}
CALL = {"role": "assistant", "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": "{}"}}]}
BAD = [
    ("{not json", "not valid JSON"),
    ('{"messages": []}', "non-empty list"),
    ('{"prompt": "x"}', "`messages` must be"),
    ('"text"', "expected an object"),
    (messages(USER), "no assistant message"),
    (messages(ANSWER), "cannot begin with role 'assistant'"),
    (messages(USER, {"role": "bot", "content": "x"}), "messages[1].role must be one of"),
    (messages(USER, {"role": "assistant", "content": 3}), "messages[1].content must be text"),
    (messages(USER, {"role": "assistant", "content": "  "}), "without content, reasoning or tool calls"),
    (messages({"role": "user", "content": [{"type": "image_url"}]}, ANSWER), "only text parts"),
    (
        messages(USER, {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{"}}]}),
        "not valid JSON",
    ),
    (messages(USER, {"role": "assistant", "tool_calls": [{"function": {"name": ""}}]}), "name must be non-empty"),
    (messages(USER, ANSWER, {"role": "tool", "content": "x"}), "must follow an assistant message with tool_calls"),
    (messages(USER, CALL, {"role": "tool", "tool_call_id": "2", "content": "x"}, ANSWER), "answers no earlier call"),
    (messages(USER, {"role": "assistant", "content": "a", "weight": 0}), "unknown field 'weight'"),
    (messages({"role": "user", "content": "u", "tool_calls": [{}]}, ANSWER), "only assistant messages have tool_calls"),
    (messages(USER, {"role": "assistant", "content": "a<|im_end|>b"}), "contains the end token"),
]


def test_all_bad_records_are_named_with_file_and_line(cluster: Any, renderer: Renderer) -> None:
    lines = [json.dumps(GOOD)]
    for line, _ in BAD:
        lines += [line, json.dumps(GOOD)]
    cluster.storage.write(cluster.uri("data/bad/part-0.jsonl"), "\n".join(lines).encode())
    source = DataSource.from_manifest({"uri": cluster.uri("data/bad")})
    report = check_records(read_records(source, cluster.storage), renderer)
    assert (report.records, report.bad_records) == (len(lines), len(BAD))
    for number, (problem, (_, expected)) in enumerate(zip(report.bad, BAD, strict=True)):
        assert problem.startswith(f"{cluster.uri('data/bad/part-0.jsonl')}:{2 + 2 * number}: ")
        assert expected in problem
    with pytest.raises(BadRecords, match=rf"{len(BAD)} bad record.*\n.*part-0.jsonl:2: "):
        report.raise_if_bad()


def test_the_list_of_bad_records_is_bounded_and_the_count_is_not(renderer: Renderer) -> None:
    report = check_records((Record(f"f:{line}", {}) for line in range(1000)), renderer)
    assert (len(report.bad), report.bad_records) == (100, 1000)


def test_shards_of_every_format_are_read_in_the_order_of_their_names(cluster: Any) -> None:
    conversations = [json.loads(json.dumps(each)) for each in arithmetic_tools(9, seed=1)]
    jsonl = "".join(json.dumps(each) + "\n\n" for each in conversations[:3]).encode()
    cluster.storage.write(cluster.uri("data/mixed/a.jsonl"), jsonl)
    packed = gzip.compress("".join(json.dumps(each) + "\n" for each in conversations[3:6]).encode())
    cluster.storage.write(cluster.uri("data/mixed/b.jsonl.gz"), packed)
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(conversations[6:]), sink)
    cluster.storage.write(cluster.uri("data/mixed/c.parquet"), sink.getvalue().to_pybytes())
    cluster.storage.write(cluster.uri("data/mixed/README.md"), b"not data")
    source = DataSource.from_manifest({"uri": cluster.uri("data/mixed")})
    records = list(read_records(source, cluster.storage))
    assert [record.value for record in records] == conversations
    assert [record.where.rpartition("/")[2] for record in records] == [
        "a.jsonl:1", "a.jsonl:3", "a.jsonl:5", "b.jsonl.gz:1", "b.jsonl.gz:2", "b.jsonl.gz:3",
        "c.parquet:1", "c.parquet:2", "c.parquet:3",
    ]  # fmt: skip


def test_a_config_map_is_read_from_where_the_operator_mounts_it(cluster: Any, tmp_path: Path) -> None:
    (tmp_path / "sums").mkdir()
    (tmp_path / "sums" / "train.jsonl").write_text(json.dumps(GOOD) + "\n")
    source = DataSource.from_manifest({"configMap": {"name": "sums", "key": "train.jsonl"}})
    (record,) = read_records(source, cluster.storage, config_maps=tmp_path)
    assert (record.where, record.value) == ("configmap/sums/train.jsonl:1", GOOD)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"uri": "s3://sft-tests/nowhere"}, "has no training files"),
        ({"builtin": {"name": "juggling"}}, "there are arithmetic-tools"),
        ({"configMap": {"name": "sums", "key": "absent.jsonl"}}, "has no key"),
    ],
)
def test_a_source_without_data_is_refused_with_the_remedy(cluster: Any, source: dict[str, Any], message: str) -> None:
    with pytest.raises(DataSourceError, match=message):
        list(read_records(DataSource.from_manifest(source), cluster.storage))


def long_conversation(turns: int) -> dict[str, Any]:
    pairs = [
        ({"role": "user", "content": f"question {n}"}, {"role": "assistant", "content": f"answer {n}"})
        for n in range(turns)
    ]
    return {"messages": [{"role": "system", "content": "Be brief."}, *(message for pair in pairs for message in pair)]}


def write(
    renderer: Renderer, records: Iterable[Any], policy: RenderPolicy, folder: Path
) -> tuple[Any, list[dict[str, Any]]]:
    numbered = [Record(f"f:{line}", value) for line, value in enumerate(records, 1)]
    report = write_samples(numbered, renderer, policy, folder / "data.arrow")
    return report, list(Dataset.from_file(str(folder / "data.arrow")))


def trained_texts(renderer: Renderer, rows: list[dict[str, Any]]) -> list[str]:
    texts = "".join(renderer.tokenizer.decode([label for label in row["labels"] if label >= 0]) for row in rows)
    return texts.split("<|im_end|>")[:-1]


def test_overlong_conversations_are_split_at_turns_and_every_turn_is_trained_once(
    renderer: Renderer, tmp_path: Path
) -> None:
    report, rows = write(renderer, [long_conversation(30)], RenderPolicy(120), tmp_path)
    assert max(len(row["input_ids"]) for row in rows) <= 120
    assert trained_texts(renderer, rows) == [f"answer {n}" for n in range(30)]
    assert all("Be brief." in renderer.tokenizer.decode(row["input_ids"]) for row in rows)
    assert (report.split_conversations, report.turns, report.skipped_turns) == (1, 30, 0)


def test_turns_that_fit_no_window_are_counted_with_their_place(renderer: Renderer, tmp_path: Path) -> None:
    chat = long_conversation(3)
    chat["messages"][4]["content"] = "endless " * 200
    report, rows = write(renderer, [chat], RenderPolicy(120), tmp_path)
    assert trained_texts(renderer, rows) == ["answer 0", "answer 2"]
    assert (report.turns, report.skipped_turns) == (2, 1)
    assert report.skipped == ["f:1: messages [4] do not fit 120 tokens"]


def test_overlong_skip_counts_and_fail_refuses(renderer: Renderer, tmp_path: Path) -> None:
    report, rows = write(renderer, [GOOD, long_conversation(30)], RenderPolicy(120, overlong=Overlong.SKIP), tmp_path)
    assert (len(rows), report.skipped_conversations, report.skipped_turns) == (1, 1, 30)
    assert report.skipped[0].startswith("f:2: ")
    report, _ = write(renderer, [GOOD, long_conversation(30)], RenderPolicy(120, overlong=Overlong.FAIL), tmp_path)
    assert "f:2: " in report.bad[0]
    assert "exceed maxLength 120" in report.bad[0]


def test_last_turn_loss_of_an_overlong_conversation_keeps_the_end(renderer: Renderer, tmp_path: Path) -> None:
    _, rows = write(renderer, [long_conversation(30)], RenderPolicy(120, LossOn.LAST_TURN), tmp_path)
    assert trained_texts(renderer, rows) == ["answer 29"]
    assert len(rows[0]["input_ids"]) <= 120


def test_data_that_is_skipped_entirely_is_refused(renderer: Renderer, tmp_path: Path) -> None:
    report, _ = write(renderer, [long_conversation(30)], RenderPolicy(120, overlong=Overlong.SKIP), tmp_path)
    with pytest.raises(BadRecords, match="nothing is left to train on"):
        report.raise_if_bad()


def test_the_same_data_gives_the_same_digest_and_the_same_held_out_conversations(
    renderer: Renderer, tmp_path: Path
) -> None:
    first, _ = write(renderer, arithmetic_tools(20, 0), RenderPolicy(512), tmp_path)
    second, _ = write(renderer, arithmetic_tools(20, 0), RenderPolicy(512), tmp_path)
    other, _ = write(renderer, arithmetic_tools(20, 1), RenderPolicy(512), tmp_path)
    assert first.digest == second.digest != other.digest
    assert held_out(200, 10, 42) == held_out(200, 10, 42) != held_out(200, 10, 43)
    assert len(held_out(200, 10, 42)) == 20
    assert held_out(200, 0, 42) == set()
    assert len(held_out(3, 1, 42)) == 1
