"""The job as the pod gets it, and the command line around it."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
from pinnace.outcome import InvalidSpec
from pinnace.sft.job import Job

JOB: dict[str, Any] = {
    "kind": "SFTJob",
    "namespace": "ns",
    "name": "job",
    "uid": "12345678-0000",
    "generation": 1,
    "spec": {
        "model": {"uri": "s3://bucket/base"},
        "data": {"train": {"builtin": {"name": "arithmetic-tools", "samples": 8, "seed": 1}}},
        "training": {"maxSteps": 3},
        "trainer": {"device": "cpu"},
    },
    "resolved": {"model": {"uri": "s3://bucket/base", "digest": None}},
    "runPath": "ns/sftjob/job/12345678",
}


def _environ(**change: Any) -> dict[str, str]:
    return {"PINNACE_JOB": json.dumps({**JOB, **change}), "PINNACE_ATTEMPT": "2", "PINNACE_POD": "job-trainer-0-0"}


def test_a_job_is_read_from_the_environment() -> None:
    job = Job.from_env(_environ())
    assert (job.run_path, job.attempt, job.pod) == ("ns/sftjob/job/12345678", 2, "job-trainer-0-0")
    assert job.spec.training.max_steps == 3
    assert job.model.uri == "s3://bucket/base"
    assert (job.identity.uid, job.identity.attempt) == ("12345678-0000", 2)


def test_attempts_are_counted_over_all_jobsets_of_a_job() -> None:
    assert Job.from_env(_environ(firstAttempt=5)).identity.attempt == 7


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({}, "PINNACE_JOB is not set"),
        ({"PINNACE_JOB": "{"}, "PINNACE_JOB"),
        (_environ(spec={}), r"spec\.model"),
        (_environ(runPath=""), "runPath"),
        ({**_environ(), "PINNACE_ATTEMPT": "x"}, "PINNACE_ATTEMPT is 'x'"),
    ],
)
def test_a_bad_job_is_refused_with_the_field(environ: dict[str, str], message: str) -> None:
    with pytest.raises(InvalidSpec, match=message):
        Job.from_env(environ)


def test_the_command_line_imports_nothing_heavy_for_its_help() -> None:
    code = (
        "import sys; from pinnace.cli import build; from typer.testing import CliRunner; "
        "result = CliRunner().invoke(build(['--help']), ['--help']); print(result.output); "
        "print(sorted({'torch', 'boto3', 'botocore', 'transformers'} & set(sys.modules)))"
    )
    lines = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.splitlines()
    assert lines[-1] == "[]"
    assert all(any(command in line for line in lines) for command in ("artifact", "checkpoint", "sft"))
