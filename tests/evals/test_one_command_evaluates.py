"""`pinnace eval`: from files and an endpoint to a report, and mistakes as one line before anything is spent."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pinnace.cli import build
from typer.testing import CliRunner, Result

from e2e.faults.model import Answer, Request
from e2e.faults.threads import serving
from e2e.synthetic import questions, write


def pinnace(*arguments: object) -> Result:
    texts = ["eval", *(str(argument) for argument in arguments)]
    return CliRunner().invoke(build(texts), texts)


def answer(request: Request) -> Answer:
    text = next(message["content"] for message in request["messages"] if message["role"] == "user")
    number = int("".join(character for character in str(text).partition("+")[0] if character.isdigit()) or 0)
    return Answer(f"<answer>{2 * number}</answer>")


def test_from_files_to_a_report_and_on_with_more_attempts(tiny: Path, tmp_path: Path) -> None:
    made = [each for each in questions(6) if "+" in each.question]
    data = write("gaia", tmp_path / "gaia", made)
    out = tmp_path / "out"
    with serving(answer) as model:
        common = ("gaia", "--endpoint", model.url, "--tokenizer", tiny, "--data", data, "--out", out, "--context", 8192,
                  "--max-tokens", 256)  # fmt: skip
        first = pinnace(*common, "-k", 2)
        assert first.exit_code == 0, first.output
        assert len(model.requests) == 6
        summary = json.loads((out / "report/summary.json").read_text())[0]
        assert summary["score"]["value"] == 1
        assert (out / "report/report.html").read_text().startswith("<!doctype html>")
        assert "100.0" in first.output
        second = pinnace(*common, "-k", 3)
        assert second.exit_code == 0, second.output
        assert len(model.requests) == 9, "what was done was done again"
        asked = len(model.requests)

        def judge(_: Request) -> Answer:
            return Answer("Incorrect")

        with serving(judge) as other:
            again = pinnace("rescore", out, "--profile", "community", "--judge-url", other.url, "--judge-model", "j")
            assert again.exit_code == 0, again.output
        assert len(model.requests) == asked, "grading asked the agent"
        assert "the profile's is Qwen2.5-72B-Instruct" in again.output
        assert json.loads((out / "report/summary.json").read_text())[0]["score"]["value"] == 0
        back = pinnace("rescore", out)
        assert back.exit_code == 0
        compared = pinnace("compare", out, out)
        assert compared.exit_code == 0
        assert "+0.0" in compared.output


def test_ones_own_benchmark_by_its_file(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "q.jsonl").write_text('{"question": "2+2?", "answer": "4"}\n')
    (tmp_path / "own.yaml").write_text("name: own\ndata: q.jsonl\ngrader: number\n")
    with serving(answer, context=4096) as model:
        result = pinnace(tmp_path / "own.yaml", "--endpoint", model.url, "--tokenizer", tiny, "-o", tmp_path / "out",
                         "--max-tokens", 256)  # fmt: skip
        assert result.exit_code == 0, result.output
        assert "own" in result.output


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"names": ["gia"]}, "did you mean gaia"),
        ({"--policy": "fould"}, "did you mean fold"),
        ({"--context": 9000}, "longer than the server's 8192"),
        ({"--max-tokens": 5000}, "leaves too little"),
        ({"--model": "other"}, "has no model 'other'"),
        ({"--pass-at": 8}, "pass@8 is undefined for 1 attempts"),
        ({"--split": "training"}, "no split 'training'"),
        ({"--split": "test"}, "no file matches"),
        ({"--checksum": "sha256:0"}, "not sha256:0"),
        ({"--data": "/nowhere"}, "no file matches"),
        ({"--profile": "community"}, "--judge-url"),
        ({"--profile": "strict"}, "use official, community"),
        ({"--judge-url": "http://127.0.0.1:9/v1"}, "both --judge-url and --judge-model"),
        ({"--tokenizer": "/nowhere"}, "neither a folder"),
        ({"--shard": "3/3"}, "write the index from 0"),
        ({"--tools": "nowhere:tools"}, "write `none` or module:function"),
        ({"--dialect": "latin"}, "use native, hermes, action"),
        ({"names": ["gaia", "hle"]}, "belong to one benchmark"),
    ],
)
def test_a_mistake_is_one_line_before_anything_is_spent(
    tiny: Path, tmp_path: Path, change: dict[str, Any], told: str
) -> None:
    data = write("gaia", tmp_path / "gaia", questions(2))
    with serving(answer, context=8192) as model:
        options: dict[str, Any] = {"--endpoint": model.url, "--tokenizer": tiny, "--data": data, "--max-tokens": 256,
                                   "--out": tmp_path / "out", **change}  # fmt: skip
        names = options.pop("names", ["gaia"])
        result = pinnace(*names, *(part for pair in options.items() for part in pair))
        assert result.exit_code == 1, result.output
        assert told in result.output
        assert "Traceback" not in result.output
        assert not model.requests
        assert not (tmp_path / "out").exists()


def test_a_server_that_takes_no_tools_is_found_out_with_the_remedy(tiny: Path, tmp_path: Path) -> None:
    data = write("gaia", tmp_path / "gaia", questions(2))
    with serving(answer, context=8192, tools=False) as model:
        result = pinnace("gaia", "--endpoint", model.url, "--tokenizer", tiny, "--data", data, "--max-tokens", 256,
                         "--out", tmp_path / "out", "--tools", "tests.evals.conftest:no_tools")  # fmt: skip
        assert result.exit_code == 1
        assert "--enable-auto-tool-choice" in result.output
        assert "--dialect hermes" in result.output


def test_an_endpoint_that_is_down_is_said(tiny: Path, tmp_path: Path) -> None:
    data = write("gaia", tmp_path / "gaia", questions(2))
    result = pinnace(
        "gaia", "--endpoint", "http://127.0.0.1:9/v1", "--tokenizer", tiny, "--data", data, "-o", tmp_path / "o"
    )
    assert result.exit_code == 1
    assert "does not answer" in result.output


def test_benchmarks_are_listed_and_judges_calibrated(tmp_path: Path) -> None:
    listed = pinnace("list")
    assert listed.exit_code == 0
    assert "xbench-deepsearch" in listed.output
    path = tmp_path / "labelled.jsonl"
    path.write_text('{"question": "q", "reference": "42", "response": "42.0", "label": "right"}\n'
                    '{"question": "q", "reference": "42", "response": "43", "label": "right"}\n')  # fmt: skip
    measured = pinnace("calibrate", "gaia", path)
    assert measured.exit_code == 0, measured.output
    assert "agreement 50.0 %" in measured.output
