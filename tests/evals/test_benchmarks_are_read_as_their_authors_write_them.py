"""Synthetic files in each benchmark's exact format through the real loaders."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pinnace.evals import (
    BadPlan,
    DataChanged,
    DataGated,
    DataInvalid,
    DataMissing,
    NotPinned,
    UnknownBenchmark,
    load,
)
from pinnace.evals.benchmarks import find, shipped
from pinnace.evals.cipher import decrypt_plain, decrypt_sha256, encrypt_plain, encrypt_sha256
from pinnace.evals.own import read_own
from pinnace.storage import Storage

from e2e.synthetic import CANARY, questions, write

NAMES = ("gaia", "hle", "browsecomp", "browsecomp-zh", "webwalkerqa", "frames", "xbench-deepsearch", "seal-0")
ENCRYPTED = ("browsecomp", "browsecomp-zh", "xbench-deepsearch")


def read(name: str, folder: Path, **more: Any) -> Any:
    split = {"hle": "all"}.get(name)
    checksum = more.pop("checksum", None)
    if name == "seal-0" and checksum is None:
        checksum = load_digest(name, folder)
    return load(find(name), split=more.pop("split", split), source=str(folder), checksum=checksum, **more)


def load_digest(name: str, folder: Path) -> str:
    from pinnace.evals.source import fetch

    benchmark = find(name)
    return fetch(next(iter(benchmark.splits.values())).data, source=str(folder)).digest


def test_all_eight_are_there_and_our_own() -> None:
    assert tuple(shipped()) == (*NAMES, "scout")


@pytest.mark.parametrize("name", NAMES)
def test_every_question_arrives_as_it_was_written(name: str, tmp_path: Path) -> None:
    made = questions()
    loaded = read(name, write(name, tmp_path / name, made))
    assert [(item.question, item.answer) for item in loaded.items] == [(each.question, each.answer) for each in made]
    assert loaded.revision == loaded.digest
    assert loaded.digest.startswith("sha256:")
    if find(name).splits[loaded.split].size is not None:
        assert any("scores don't compare" in warning for warning in loaded.warnings)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "frames"])  # its ids are row numbers
def test_ids_do_not_depend_on_the_order_of_rows(name: str, tmp_path: Path) -> None:
    made = questions()
    first = {item.id: item.question for item in read(name, write(name, tmp_path / "a", made)).items}
    random.Random(1).shuffle(made)
    second = {item.id: item.question for item in read(name, write(name, tmp_path / "b", made)).items}
    assert first == second
    assert len(first) == 6


@pytest.mark.parametrize("name", ENCRYPTED)
def test_encrypted_files_have_no_plain_text(name: str, tmp_path: Path) -> None:
    import zipfile

    folder = write(name, tmp_path / name)
    for path in folder.rglob("*"):
        content = path.read_bytes()
        if path.suffix == ".xlsx":
            with zipfile.ZipFile(path) as book:
                content = b"".join(book.read(each) for each in book.namelist())
        assert b"What is" not in content
        assert "等于".encode() not in content


@pytest.mark.parametrize("text", ["", "a", "What is 2+2?", "東京タワー" * 40, "😀\n\t"])
def test_the_ciphers_are_inverses_and_not_each_other(text: str) -> None:
    assert decrypt_sha256(encrypt_sha256(text, CANARY), CANARY) == text
    assert decrypt_plain(encrypt_plain(text, CANARY), CANARY) == text
    if len(text) > 3:
        assert encrypt_plain(text, CANARY) != encrypt_sha256(text, CANARY)


def test_the_ciphers_agree_with_values_computed_by_hand() -> None:
    # SHA-256("k") begins 8254c329…; "A" is 0x41: 0x41 ^ 0x82 = 0xc3, base64 "ww==". Plain: 0x41 ^ 0x6b = 0x2a, "Kg==".
    assert encrypt_sha256("A", "k") == "ww=="
    assert encrypt_plain("A", "k") == "Kg=="


def test_a_wrong_canary_is_noticed(tmp_path: Path) -> None:
    folder = write("browsecomp", tmp_path / "b")
    path = folder / "browse_comp_test_set.csv"
    path.write_text(path.read_text().replace(CANARY, "another"))
    with pytest.raises(DataInvalid, match="does not decrypt"):
        read("browsecomp", folder)


def test_gaia_has_levels_attachments_and_a_text_split(tmp_path: Path) -> None:
    folder = write("gaia", tmp_path / "g", questions(9))
    everything = read("gaia", folder).items
    assert [item.groups["level"] for item in everything] == ["1", "2", "3"] * 3
    assert [path.name for item in everything for path in item.files] == ["table-2.txt", "table-5.txt", "table-8.txt"]
    assert len(read("gaia", folder, split="text").items) == 6
    assert [item.groups["level"] for item in read("gaia", folder, split="level2").items] == ["2"] * 3
    (folder / "2023/validation/table-5.txt").unlink()
    with pytest.raises(DataMissing, match=r"table-5\.txt"):
        read("gaia", folder)


def test_gaias_103_text_questions_are_known_by_id(tmp_path: Path) -> None:
    from dataclasses import replace

    ids = (Path(__file__).parents[2] / "workloads/pinnace/evals/benchmarks/gaia_text_103.txt").read_text().split()
    assert len(set(ids)) == 103
    made = [replace(each, id=one) for each, one in zip(questions(5), ids, strict=False)] + questions(3)
    items = read("gaia", write("gaia", tmp_path / "g", made), split="text-103").items
    assert [item.id for item in items] == ids[:5]


def test_hle_text_leaves_images_out(tmp_path: Path) -> None:
    folder = write("hle", tmp_path / "h")
    assert len(read("hle", folder, split="text").items) == 4
    with_image = [item for item in read("hle", folder).items if item.images]
    assert len(with_image) == 2
    assert all(item.images[0].startswith("data:image/png") for item in with_image)
    assert all(item.canary == CANARY for item in with_image)


def test_seal_0_without_a_revision_is_refused() -> None:
    with pytest.raises(NotPinned, match="--revision"):
        load(find("seal-0"))
    with pytest.raises(NotPinned):
        load(find("seal-0"), revision="main")


def test_a_changed_checksum_is_refused(tmp_path: Path) -> None:
    folder = write("frames", tmp_path / "f")
    digest = read("frames", folder).digest
    assert read("frames", folder, checksum=digest).digest == digest
    (folder / "test.tsv").write_text((folder / "test.tsv").read_text().replace("What is", "what is"))
    with pytest.raises(DataChanged, match=digest):
        read("frames", folder, checksum=digest)


def test_a_copy_in_s3_is_the_same(tmp_path: Path, storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    from pinnace.storage import S3Uri

    folder = write("hle", tmp_path / "h")
    root = S3Uri(storage.settings.bucket, "data/hle")
    for path in folder.rglob("*.parquet"):
        storage.write(root / path.relative_to(folder).as_posix(), path.read_bytes())
    monkeypatch.setattr(Storage, "from_env", classmethod(lambda _: storage))
    monkeypatch.setenv("PINNACE_CACHE", str(tmp_path / "cache"))
    there = load(find("hle"), split="all", source=str(root))
    assert there.items == read("hle", folder).items
    assert there.digest == read("hle", folder).digest


@pytest.mark.parametrize("name", NAMES)
def test_another_file_is_refused_with_the_place(name: str, tmp_path: Path) -> None:
    path = tmp_path / "wrong.jsonl"
    path.write_text('{"something": "else"}\n')
    with pytest.raises((DataInvalid, DataMissing), match=r"no field|there is no metadata"):
        load(find(name), source=str(path), checksum=load_digest(name, path))


def test_two_questions_with_one_id_are_refused(tmp_path: Path) -> None:
    made = questions(2)
    with pytest.raises(DataInvalid, match="two items have the id"):
        read("hle", write("hle", tmp_path / "h", [made[0], made[0]]))


@pytest.mark.parametrize(
    ("name", "near"), [("browsecomp_zh2", "browsecomp-zh"), ("gia", "gaia"), ("xbench", "xbench-deep")]
)
def test_an_unknown_benchmark_gets_the_nearest_names(name: str, near: str) -> None:
    with pytest.raises(UnknownBenchmark, match=near):
        find(name)
    assert find("Browse_Comp-ZH").name == "browsecomp-zh"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """A local HTTP server in the hub's place; `answer` is (status, error code)."""
    import threading
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

    state: dict[str, Any] = {"answer": (404, "RepoNotFound")}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, code = state["answer"]
            self.send_response(status)
            self.send_header("X-Error-Code", code)
            self.send_header("X-Error-Message", code)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_HEAD = do_GET  # noqa: N815 - the base class's name

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    yield state
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("answer", "error", "told"),
    [
        ((403, "GatedRepo"), DataGated, "accept its terms at https://huggingface.co/datasets/gaia-benchmark/GAIA"),
        ((404, "RevisionNotFound"), DataMissing, "no revision"),
        ((404, "RepoNotFound"), DataMissing, "HF_TOKEN"),
        ((418, "Down"), DataMissing, "give a copy"),
    ],
)
def test_what_the_hub_refuses_is_explained(hub: dict[str, Any], answer: Any, error: type[Exception], told: str) -> None:
    hub["answer"] = answer
    with pytest.raises(error, match=told):
        load(find("gaia"), revision="0" * 40)


OWN = """
name: my-questions
data: questions.jsonl
fields: {id: key, question: q, answer: a, groups: [kind]}
grader: number
system: Answer with a number.
rule: tag|final
"""


def test_ones_own_benchmark_is_a_jsonl_and_ten_lines_of_yaml(tmp_path: Path) -> None:
    (tmp_path / "questions.jsonl").write_text('{"key": "one", "q": "1+1?", "a": 2, "kind": "easy"}\n')
    (tmp_path / "own.yaml").write_text(OWN)
    benchmark, source = read_own(tmp_path / "own.yaml")
    loaded = load(benchmark, source=source)
    item = loaded.items[0]
    assert (item.id, item.question, item.answer, dict(item.groups)) == ("one", "1+1?", "2", {"kind": "easy"})


def test_ones_own_benchmark_may_be_python(tmp_path: Path) -> None:
    (tmp_path / "questions.jsonl").write_text('{"q": "1+1?", "a": "2"}\n')
    (tmp_path / "own.py").write_text(
        f"""
from pinnace.evals import Benchmark, Item, Profile, RuleGrader, Split
from pinnace.evals.rows import read_rows
from pinnace.evals.source import HubData

def read(fetched):
    for row in read_rows(fetched.files[0]):
        yield Item(row["q"], row["q"], row["a"])

BENCHMARK = Benchmark(name="mine", title="Mine", splits={{"all": Split(HubData("mine", ("*.jsonl",)))}}, read=read,
    system="", rule="final", profiles={{"official": Profile(RuleGrader("same", lambda one, two: one == two))}})
DATA = {str(tmp_path)!r}
"""
    )
    benchmark, source = read_own(tmp_path / "own.py")
    assert source is None
    assert load(benchmark, source=str(tmp_path)).items[0].answer == "2"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("grader: number", "grader: vibes"), "none of"),
        (("rule: tag|final", "rule: guess"), "unknown answer rule"),
        (("name: my-questions", "name: My Questions"), "name"),
        (("system:", "sistem:"), "sistem"),
        (("grader: number", "grader: judge"), "needs `judge"),
    ],
)
def test_mistakes_in_ones_own_benchmark_are_named(tmp_path: Path, change: tuple[str, str], told: str) -> None:
    (tmp_path / "own.yaml").write_text(OWN.replace(*change))
    with pytest.raises(BadPlan, match=told):
        read_own(tmp_path / "own.yaml")


def test_a_split_or_profile_that_is_not_there_is_named() -> None:
    with pytest.raises(BadPlan, match="use validation"):
        load(find("gaia"), split="training")
    with pytest.raises(BadPlan, match="use official, community"):
        find("gaia").profile("strict")
