"""How a stage ends: its typed failures, the termination message and the exit code (docs/contracts.md §3)."""

from __future__ import annotations

import logging
import os
import traceback
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import ClassVar

from pinnace_operator.api.conditions import Reason
from pinnace_operator.api.outcome import ExitCode, Outcome
from pinnace_operator.api.status import CheckpointRef

from pinnace.storage.errors import StorageError, StorageUnavailable

log = logging.getLogger(__name__)

TERMINATION_LOG = Path("/dev/termination-log")
_SECRETS = (
    "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "WANDB_API_KEY", "HF_TOKEN", "PINNACE_MODEL_API_KEY",
    "PINNACE_JUDGE_API_KEY", "PINNACE_TOOLS_TOKEN", "PINNACE_RL_KEY",
)  # fmt: skip
_CRASHED = 1  # any code that is not in ExitCode: the operator restarts and counts it


class StageFailure(Exception):
    """A failure that a stage understands. The message says what is wrong, where, and what to do."""

    exit_code: ClassVar[ExitCode]

    def __init__(self, message: str, *, step: int | None = None) -> None:
        super().__init__(message)
        self.step = step


class InvalidSpec(StageFailure):
    """The job can't work as it is written."""

    exit_code = ExitCode.INVALID_SPEC


class InvalidData(StageFailure):
    """The training or evaluation data is unusable; the message names file and line."""

    exit_code = ExitCode.INVALID_DATA


class Diverged(StageFailure):
    """NaN or infinite loss or gradient."""

    exit_code = ExitCode.DIVERGED


class ModelUnusable(StageFailure):
    """The base model can't be loaded or does not fit the job."""

    exit_code = ExitCode.MODEL_UNUSABLE


class Checkpointed(StageFailure):
    """SIGTERM was honoured: the state is saved and the next attempt goes on from there."""

    exit_code = ExitCode.CHECKPOINTED

    def __init__(self, message: str, *, step: int | None = None, checkpoint: CheckpointRef | None = None) -> None:
        super().__init__(message, step=step)
        self.checkpoint = checkpoint


class OutOfReach(Exception):
    """Something outside does not answer. Another attempt may find it there, so this is not permanent."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class LogTail(logging.Handler):
    """Keeps the last lines that were logged."""

    def __init__(self, lines: int = 40) -> None:
        super().__init__()
        self.lines: deque[str] = deque(maxlen=lines)
        self.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.extend(self.format(record).splitlines())

    @property
    def text(self) -> str:
        return "\n".join(self.lines)


def run_stage(
    main: Callable[[], Outcome | None],
    *,
    crashed: Reason = Reason.TRAINER_FAILED,
    termination_log: Path = TERMINATION_LOG,
) -> int:
    """Runs a stage, writes how it ended to `termination_log` and returns the exit code for `sys.exit`.

    Args:
        main: returns the outcome of success (None: nothing to tell), or raises.
        crashed: the reason of an end that nobody foresaw.
        termination_log: the container's termination message file.
    """
    tail = LogTail()
    logging.getLogger().addHandler(tail)
    try:
        outcome = main()
    except (Exception, KeyboardInterrupt) as error:  # the process ends here, and must say why
        outcome = failed(error, tail.text, crashed=crashed)
        if outcome.exit_code == _CRASHED:
            log.exception("%s: %s", outcome.reason, outcome.message)
        else:
            log.error("%s: %s", outcome.reason, outcome.message)  # noqa: TRY400 - the message says what to do
    finally:
        logging.getLogger().removeHandler(tail)
    if outcome is None:
        return 0
    write(outcome, termination_log)
    return outcome.exit_code


def failed(error: BaseException, log_tail: str = "", *, crashed: Reason = Reason.TRAINER_FAILED) -> Outcome:
    """The outcome of a stage that ended with `error`. Secrets of this process's environment are blanked.

    A store that is out of reach may come back: only what a person must correct (credentials, bucket) is permanent.
    """
    code: int = _CRASHED
    reason, message = crashed, f"{type(error).__name__}: {error}"
    if isinstance(error, StageFailure):
        code, reason, message = error.exit_code, error.exit_code.reason, str(error)
    elif isinstance(error, OutOfReach):
        reason, message = error.reason, str(error)
    elif isinstance(error, StorageUnavailable):
        code = _CRASHED if error.transient else ExitCode.STORAGE_UNAVAILABLE
        reason, message = Reason.STORAGE_UNAVAILABLE, str(error)
    elif isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # torch's, for CUDA
        reason, message = Reason.OUT_OF_MEMORY, str(error)  # the operator adds the remedy that the kind has
    elif not isinstance(error, StorageError):
        log_tail += "\n" + "".join(traceback.format_exception(error))
    return Outcome(
        reason=reason,
        message=blank_secrets(message),
        exit_code=code,
        step=error.step if isinstance(error, StageFailure) else None,
        checkpoint=error.checkpoint if isinstance(error, Checkpointed) else None,
        log_tail=blank_secrets(log_tail.strip()),
    )


def write(outcome: Outcome, path: Path = TERMINATION_LOG) -> None:
    """Writes the termination message. A container runtime that forbids it only costs the message."""
    try:
        path.write_text(outcome.dump())
    except OSError as error:
        log.warning("the termination message can't be written to %s: %s", path, error)


def blank_secrets(text: str, environ: Mapping[str, str] = os.environ) -> str:
    """`text` without the values of the secrets that this process was given."""
    for name in _SECRETS:
        if value := environ.get(name):
            text = text.replace(value, "***")
    return text
