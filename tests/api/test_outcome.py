"""A pod's last words fit into what the kubelet keeps, and the list of reasons is closed and documented."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pinnace_operator.api.conditions import REASONS, Reason, explain
from pinnace_operator.api.merge_status import MOST_CANDIDATES, MergeReport, SweepRow, SweepStatus
from pinnace_operator.api.outcome import PERMANENT_EXIT_CODES, ExitCode, Outcome
from pinnace_operator.api.progress import ProgressReport
from pinnace_operator.api.sft import SFTJob
from pydantic import ValidationError


@given(message=st.text(max_size=3000), log=st.text(max_size=6000))
def test_an_outcome_always_fits_and_parses(message: str, log: str) -> None:
    text = Outcome(reason=Reason.DIVERGED, message=message, exit_code=70, log_tail=log).dump()
    read = Outcome.parse(text)
    assert len(text.encode()) <= 4096
    assert read is not None
    assert log.endswith(read.log_tail)
    assert message.startswith(read.message.removesuffix("…")) or message == read.message


def test_the_log_is_cut_before_the_message() -> None:
    read = Outcome.parse(
        Outcome(reason=Reason.DIVERGED, message="m" * 2000, exit_code=70, log_tail="l\n" * 4000).dump()
    )
    assert read is not None
    assert read.message == "m" * 2000
    assert 0 < len(read.log_tail) < 2096


@pytest.mark.parametrize("text", ["", "Killed", "{}", '{"reason": "Bored", "exitCode": 1}', "[1]"])
def test_foreign_termination_messages_are_no_outcome(text: str) -> None:
    assert Outcome.parse(text) is None


def test_exit_codes_are_those_of_the_contract() -> None:
    assert {code.reason: int(code) for code in ExitCode} == {
        "Completed": 0, "InvalidSpec": 64, "InvalidData": 65, "StorageUnavailable": 69,
        "Diverged": 70, "ModelUnusable": 78, "Checkpointed": 85,
    }  # fmt: skip
    assert PERMANENT_EXIT_CODES == (64, 65, 69, 70, 78)


def test_every_reason_is_documented() -> None:
    assert set(REASONS) == set(Reason)


@pytest.mark.parametrize("code", [code for code in ExitCode if code.permanent], ids=lambda code: code.name)
def test_a_failure_names_its_remedy(code: ExitCode) -> None:
    assert f"loss is NaN at step 7. Remedy: {REASONS[code.reason].remedy}." == explain(
        code.reason, "loss is NaN at step 7."
    )


def test_a_progress_report_is_bounded() -> None:
    report = {"kind": "SFTJob", "namespace": "n", "name": "a", "uid": "u", "attempt": 0, "step": 1}
    metric = {"name": "loss", "value": "1"}
    assert ProgressReport.from_manifest(report | {"metrics": [metric] * 64}).step == 1
    with pytest.raises(ValidationError, match="at most 64"):
        ProgressReport.from_manifest(report | {"metrics": [metric] * 65})


@pytest.mark.parametrize(
    ("nodes", "per_node", "sequence_parallel", "micro", "batch", "accumulation"),
    [(1, 1, 1, 1, 4, 4), (2, 4, 1, 2, 32, 2), (1, 8, 8, 1, 32, 32), (2, 8, 4, 2, 16, 2)],
)
def test_accumulation_follows_from_the_batch(
    nodes: int, per_node: int, sequence_parallel: int, micro: int, batch: int, accumulation: int
) -> None:
    spec = {
        "model": {"uri": "s3://pinnace/m"},
        "data": {"train": {"uri": "s3://pinnace/d"}},
        "training": {"microBatchSize": micro, "globalBatchSize": batch},
        "deepspeed": {"sequenceParallel": sequence_parallel},
        "trainer": {"device": "cpu", "nodes": nodes, "processesPerNode": per_node},
    }
    job = SFTJob.from_manifest({"metadata": {"name": "a"}, "spec": spec})
    assert job.spec.gradient_accumulation_steps == accumulation


def test_the_table_of_a_sweep_gives_way_before_the_message_is_cut_to_pieces() -> None:
    loss = "1.23456"
    rows = tuple(
        SweepRow(candidate=f"candidate-{n:03d}", values=("0.123456789012",) * 4, special=loss, general=loss, total=loss)
        for n in range(MOST_CANDIDATES)
    )
    report = MergeReport(sweep=SweepStatus(candidates=32, scored=32, rows=rows, winner="candidate-007"))
    told = [Outcome(reason=Reason.COMPLETED, exit_code=0, merge=each) for each in report.reductions()]
    assert [each.fits for each in told] == [False, False, True]
    assert Outcome.parse(told[-1].dump()) == told[-1]
    assert told[-1].merge.sweep.winner == "candidate-007"
