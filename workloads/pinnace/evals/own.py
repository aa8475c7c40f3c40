"""Benchmarks of one's own: a JSONL and ten lines of YAML, or a Python file.

    name: my-questions
    data: questions.jsonl          # or s3://…; relative to this file
    fields: {id: id, question: question, answer: answer}
    grader: gaia                   # exact | exact-ignoring-case | number | gaia, or judge
    judge: {prompt: prompt.txt, reading: hle}
    system: Answer the question.
    rule: tag|final

A Python file defines `BENCHMARK`, a `pinnace.evals.Benchmark`.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from pinnace.agent import AnswerRule

from .benchmark import Benchmark, Split
from .benchmarks.forms import TAG
from .errors import BadPlan
from .graders import Grader, JudgeGrader, JudgePrompt, Profile, RuleGrader
from .graders.readings import READINGS
from .graders.rules import RULES
from .item import Item, id_of
from .rows import read_rows, text_of
from .source import Fetched, HubData


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Fields(_Part):
    """Which field of a row is what. `groups` are fields that scores are also broken down by."""

    id: str | None = None
    question: str = "question"
    answer: str = "answer"
    groups: tuple[str, ...] = ()


class JudgeFile(_Part):
    """A judge prompt: one that is shipped, by name, or a text file with {question}, {reference} and {response}."""

    prompt: str
    reading: Literal["hle", "letter", "word", "grade", "decision", "conclusion"]
    model: str | None = None


class OwnBenchmark(_Part):
    """The YAML file."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")
    data: str
    title: str = ""
    fields: Fields = Fields()
    grader: str = "exact-ignoring-case"
    judge: JudgeFile | None = None
    system: str = TAG
    rule: str = "tag|final"
    blocked: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _known(self) -> OwnBenchmark:
        AnswerRule(self.rule)
        if self.grader == "judge" and self.judge is None:
            raise ValueError("grader: judge needs `judge: {prompt, reading}`")
        if self.grader != "judge" and self.grader not in RULES:
            raise ValueError(f"grader {self.grader!r} is none of {', '.join(RULES)}, judge")
        return self


def read_own(path: Path) -> tuple[Benchmark, str | None]:
    """The benchmark of a .yaml or .py file, and where its data is (None: as it says itself). Raises `BadPlan`."""
    if not path.is_file():
        raise BadPlan(f"there is no file {path}")
    if path.suffix == ".py":
        return _from_python(path), None
    try:
        own = OwnBenchmark.model_validate(yaml.safe_load(path.read_text()))
    except (yaml.YAMLError, ValidationError) as error:
        raise BadPlan(f"{path}: {error}") from None
    data = own.data if own.data.startswith("s3://") else str((path.parent / own.data).resolve())
    return _benchmark(own, path.parent), data


def _benchmark(own: OwnBenchmark, folder: Path) -> Benchmark:
    fields = own.fields

    def read(fetched: Fetched) -> Iterator[Item]:
        for file in fetched.files:
            for number, row in enumerate(read_rows(file), 1):
                where = f"{file.name}, row {number}"
                question = text_of(row, fields.question, where)
                yield Item(
                    id=text_of(row, fields.id, where) if fields.id else id_of(question),
                    question=question,
                    answer=text_of(row, fields.answer, where),
                    groups={name: str(row.get(name, "")) for name in fields.groups},
                )

    patterns = ("*.jsonl", "*.csv", "*.parquet", "*.json", "*.xlsx")
    return Benchmark(
        name=own.name,
        title=own.title or own.name,
        splits={"all": Split(HubData(own.name, patterns))},
        read=read,
        system=own.system,
        rule=own.rule,
        profiles={"official": Profile(_grader(own, folder), judge=own.judge.model if own.judge else None)},
        blocked=own.blocked,
        needs=own.needs,
    )


def _grader(own: OwnBenchmark, folder: Path) -> Grader:
    if own.judge is None or own.grader != "judge":
        return RuleGrader(own.grader, RULES[own.grader])
    reading = READINGS[own.judge.reading]
    path = folder / own.judge.prompt
    if path.is_file():
        try:
            return JudgeGrader(JudgePrompt(path.stem, path.read_text(), reading))
        except ValueError as error:
            raise BadPlan(f"{path}: {error}") from None
    try:
        return JudgeGrader(JudgePrompt.shipped(own.judge.prompt, reading))
    except FileNotFoundError:
        raise BadPlan(f"judge.prompt: there is neither a file {path} nor a shipped prompt of that name") from None


def _from_python(path: Path) -> Benchmark:
    spec = importlib.util.spec_from_file_location(f"pinnace_own_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise BadPlan(f"{path} can't be imported")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found: object = getattr(module, "BENCHMARK", None)
    if not isinstance(found, Benchmark):
        raise BadPlan(f"{path} defines no `BENCHMARK` of type pinnace.evals.Benchmark")
    return found
