"""However a stage ends, the termination message says why and the exit code what to do."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import time
from pathlib import Path

import pytest
from pinnace.outcome import Checkpointed, Diverged, InvalidData, InvalidSpec, ModelUnusable, run_stage
from pinnace.shutdown import Shutdown
from pinnace.storage import DamagedFile, StorageUnavailable
from pinnace_operator.api.conditions import Reason
from pinnace_operator.api.outcome import Outcome


class OutOfMemoryError(RuntimeError):
    """Named as torch's."""


@pytest.mark.parametrize(
    ("error", "code", "reason"),
    [
        (InvalidSpec("m"), 64, "InvalidSpec"),
        (InvalidData("m"), 65, "InvalidData"),
        (StorageUnavailable("m"), 69, "StorageUnavailable"),
        (StorageUnavailable("m", transient=True), 1, "StorageUnavailable"),
        (Diverged("m", step=3), 70, "Diverged"),
        (ModelUnusable("m"), 78, "ModelUnusable"),
        (Checkpointed("m", step=3), 85, "Checkpointed"),
        (OutOfMemoryError("m"), 1, "OutOfMemory"),
        (DamagedFile("m", "x"), 1, "TrainerFailed"),
        (KeyError("m"), 1, "TrainerFailed"),
        (KeyboardInterrupt("m"), 1, "TrainerFailed"),
    ],
)
def test_every_end_is_written_down(error: BaseException, code: int, reason: str, tmp_path: Path) -> None:
    def main() -> None:
        raise error

    assert run_stage(main, termination_log=tmp_path / "log") == code
    outcome = Outcome.parse((tmp_path / "log").read_text())
    assert outcome is not None
    assert (outcome.exit_code, outcome.reason) == (code, reason)
    assert "m" in outcome.message
    assert outcome.step == getattr(error, "step", None)


def test_success_is_written_where_there_is_something_to_tell(tmp_path: Path) -> None:
    assert run_stage(lambda: None, termination_log=tmp_path / "log") == 0
    assert not (tmp_path / "log").exists()
    done = Outcome(reason=Reason.COMPLETED, exit_code=0, step=5)
    assert run_stage(lambda: done, termination_log=tmp_path / "log") == 0
    assert Outcome.parse((tmp_path / "log").read_text()) == done


def test_the_log_tail_fits_and_keeps_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s3cr3t-value")

    def main() -> None:
        for number in range(1000):
            logging.getLogger("trainer").warning("line %d ü with s3cr3t-value", number)
        raise RuntimeError("broke with s3cr3t-value")

    assert run_stage(main, termination_log=tmp_path / "log") == 1
    text = (tmp_path / "log").read_text()
    assert len(text.encode()) <= 4096
    assert "s3cr3t-value" not in text
    tail = json.loads(text)["logTail"]
    assert "line 999" in tail
    assert "RuntimeError: broke with ***" in tail


def test_a_termination_log_that_can_not_be_written_changes_nothing(tmp_path: Path) -> None:
    def main() -> None:
        raise Diverged("m")

    assert run_stage(main, termination_log=tmp_path / "no" / "log") == 70


_STAGE = """
import sys
from pathlib import Path
from pinnace.outcome import Checkpointed, run_stage
from pinnace.shutdown import Shutdown
shutdown = Shutdown(grace_seconds=20).install()
def main():
    print("step", flush=True)
    while not shutdown.wait(0.05):
        pass
    assert 0 < shutdown.seconds_left() <= 20
    raise Checkpointed("saved on SIGTERM", step=4)
sys.exit(run_stage(main, termination_log=Path(sys.argv[1])))
"""


def test_sigterm_ends_a_stage_with_85(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _STAGE, str(tmp_path / "log")], stdout=subprocess.PIPE, text=True
    ) as stage:
        assert stage.stdout is not None
        assert stage.stdout.readline() == "step\n"
        stage.terminate()
        assert stage.wait(30) == 85
    outcome = Outcome.parse((tmp_path / "log").read_text())
    assert outcome is not None
    assert (outcome.reason, outcome.step) == (Reason.CHECKPOINTED, 4)


def test_the_grace_period_runs_from_the_first_request(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([100.0, 130.0, 200.0])
    monkeypatch.setattr("pinnace.shutdown.monotonic", lambda: next(clock))
    shutdown = Shutdown(grace_seconds=50)
    assert not shutdown.requested
    assert shutdown.seconds_left() == 50
    shutdown.request()
    shutdown.request()
    assert shutdown.requested
    assert shutdown.seconds_left() == 20
    assert shutdown.seconds_left() == 0


_HANGING = """
import sys, tempfile
from pathlib import Path
from pinnace.storage import S3Settings, Storage, StorageUnavailable
storage = Storage(S3Settings(bucket="bucket", endpoint="http://127.0.0.1:1", access_key="a", secret_key="b"))
checkpoints = storage.run("r").checkpoints
folder = Path(sys.argv[1]); (folder / "x").write_bytes(b"1")
upload = checkpoints.begin(1); upload.add(folder, "state"); upload.commit()
try:
    checkpoints.wait(0.5)
except StorageUnavailable:
    sys.exit(85)
"""


def test_a_process_ends_although_its_uploads_still_wait_for_the_store(tmp_path: Path) -> None:
    began = time.monotonic()
    assert subprocess.run([sys.executable, "-c", _HANGING, str(tmp_path)], check=False, timeout=60).returncode == 85
    assert time.monotonic() - began < 60
