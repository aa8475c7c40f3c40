"""torchrun as a child: rendezvous, log relay, and SIGTERM turned into a request to the workers.

torchrun answers SIGTERM by killing its workers after 30 seconds, and hides their exit codes. So it never gets the
signal: the supervisor creates the stop file, workers checkpoint at the next step and leave outcome files.
"""

from __future__ import annotations

import math
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from pinnace.outcome import Checkpointed

from .job import Job
from .scratch import Scratch

PORT = 29500
_EXIT_CODE = re.compile(r"exitcode\s*:\s*(-?\d+)")


class RendezvousFailed(Exception):
    """The pods did not find each other; the operator tries again."""


@dataclass(frozen=True)
class Node:
    """This pod's place among the job's pods."""

    rank: int
    master: str
    port: int

    @classmethod
    def from_env(cls, job: Job) -> Node:
        alone = job.spec.trainer.nodes == 1
        name = "127.0.0.1" if alone else f"{job.name}-trainer-0-0.{job.name}"
        return cls(
            rank=int(os.environ.get("JOB_COMPLETION_INDEX", "0")),
            master=os.environ.get("PINNACE_MASTER_ADDR", name),
            port=int(os.environ.get("PINNACE_MASTER_PORT", PORT)),
        )

    def wait_for_master(self, timeout: float = 300) -> None:
        """Until the first pod's name resolves: its DNS record appears after the pod does. Raises `RendezvousFailed`."""
        deadline = time.monotonic() + timeout
        while True:
            try:
                socket.getaddrinfo(self.master, self.port)
            except OSError as error:
                if time.monotonic() > deadline:
                    raise RendezvousFailed(
                        f"{self.master} does not resolve after {timeout:g} s ({error}): check that all pods could "
                        "start, and that the NetworkPolicy allows DNS and traffic between them"
                    ) from error
                time.sleep(1)
            else:
                return


@dataclass(frozen=True)
class Ended:
    """How torchrun ended. `code` is a shell-like exit code (137 for SIGKILL); `tail` the last lines of all workers."""

    code: int
    tail: str


@contextmanager
def interruptible() -> Iterator[None]:
    """While preparing there is nothing to save: SIGTERM ends the stage at once."""

    def stop(_signal: int, _frame: FrameType | None) -> None:
        raise Checkpointed("asked to stop before training began; nothing is lost, the next attempt starts from here")

    previous = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def launch(job: Job, node: Node, scratch: Scratch) -> Ended:
    """Runs the workers to their end."""
    trainer = job.spec.trainer
    command = [
        sys.executable, "-m", "torch.distributed.run",
        f"--nnodes={trainer.nodes}", f"--node-rank={node.rank}", f"--nproc-per-node={trainer.processes_per_node}",
        f"--master-addr={node.master}", f"--master-port={node.port}", "--max-restarts=0",
        "-m", "pinnace.sft.worker",
    ]  # fmt: skip

    def request_stop(_signal: int, _frame: FrameType | None) -> None:
        scratch.stop.touch()

    previous = signal.signal(signal.SIGTERM, request_stop)
    tail: deque[str] = deque(maxlen=60)
    try:
        with subprocess.Popen(
            command,
            env=_environment(job),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,  # a signal to our group is for us alone
        ) as process:
            assert process.stdout is not None  # noqa: S101 - it is a pipe
            for line in process.stdout:
                sys.stdout.write(line)
                sys.stdout.flush()
                tail.append(line.rstrip())
            code = process.wait()
    finally:
        signal.signal(signal.SIGTERM, previous)
    return Ended(_shell_code(code, "\n".join(tail)), "\n".join(tail))


def _shell_code(code: int, tail: str) -> int:
    """torchrun exits with 1 and prints its first failed worker's code; negative codes are signals."""
    if code == 1 and (found := _EXIT_CODE.findall(tail)):
        code = int(found[-1])
    return 128 - code if code < 0 else code


def _environment(job: Job) -> dict[str, str]:
    trainer = job.spec.trainer
    environment = {
        **os.environ,
        "PYTHONUNBUFFERED": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",  # everything is on local disk by now
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(max(1, cores() // trainer.processes_per_node))),
    }
    if trainer.device == "cpu":
        environment |= {"DS_ACCELERATOR": "cpu", "CUDA_VISIBLE_DEVICES": ""}
    return environment


def cores(cgroup: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """Cores this container may use: its CPU limit, rounded up, or all of the machine's."""
    available = len(os.sched_getaffinity(0))
    try:
        quota, period = cgroup.read_text().split()
        return available if quota == "max" else min(available, math.ceil(int(quota) / int(period)))
    except (OSError, ValueError):
        return available
