"""Imports torch, TRL and DeepSpeed once, then forks a process for each training run that a test asks for.

Importing takes longer than training the tiny model. Started by conftest; reads one JSON request a line:
`{"root": scratch, "spec": {…}, "processes": n, "port": p}`; each forked process trains and rank 0 writes `result.json`.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any

from pinnace.sft.scratch import Scratch
from pinnace.sft.train import train
from pinnace_operator.api.sft import SFTJobSpec


class KeepLocally:
    """A checkpoint sink that only remembers where the checkpoints are."""

    def __init__(self) -> None:
        self.saved: dict[int, str] = {}

    def save(self, step: int, directory: Path, eval_loss: float | None) -> None:
        self.saved[step] = str(directory)


def run(request: dict[str, Any], rank: int) -> None:
    log = os.open(Path(request["root"]) / f"log-{rank}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    processes = str(request["processes"])
    os.environ |= {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes,
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(request["port"]),
    }  # fmt: skip
    history: list[dict[str, float]] = []
    sink = KeepLocally()
    stopped = train(
        SFTJobSpec.from_manifest(request["spec"]),
        Scratch(Path(request["root"])),
        sink,
        lambda step, total, metrics: history.append({"step": step, "total": total, **metrics}),
        resumed_from=request.get("resumed_from", 0),
    )
    if rank == 0:
        result = {"history": history, "checkpoints": sink.saved, "stopped": stopped}
        (Path(request["root"]) / "result.json").write_text(json.dumps(result))


def main() -> None:
    print("ready", flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        children = []
        for rank in range(request["processes"]):
            child = os.fork()
            if child == 0:
                code = 1
                try:
                    run(request, rank)
                    code = 0
                except BaseException:  # noqa: BLE001 - the child must never return into the parent's loop
                    traceback.print_exc()
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
            children.append(child)
        codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        print(json.dumps(codes), flush=True)


if __name__ == "__main__":
    main()
