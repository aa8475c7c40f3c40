"""One merge from S3 to S3 in a process of its own, to be killed or measured. Arguments as JSON on the command line."""

from __future__ import annotations

import json
import os
import sys
import threading
from typing import Any


def main(arguments: dict[str, Any]) -> None:
    """Keys: settings (of S3Settings), config (of mergekit), output, options, dieAt (kill -9 before the n-th write).

    With `job`, it is what a MergeJob's pod runs instead, from PINNACE_JOB.
    """
    if arguments.get("job"):
        _pod(arguments.get("dieAt"))
        return
    from pinnace.merge import RunOptions, run
    from pinnace.merge.budget import peak_bytes
    from pinnace.merge.layout import PART_BYTES
    from pinnace.merge.sources import Places, plan_document
    from pinnace.storage import S3Settings, Storage

    storage = Storage(S3Settings(**arguments["settings"]))
    die_at = arguments.get("dieAt")
    if die_at is not None:
        _die_at(storage.store, die_at)
    places = Places(lambda: storage)
    plan, _ = plan_document(arguments["config"], places, part_bytes=arguments.get("partBytes", PART_BYTES))
    store, to = places.locate(arguments["output"])
    print("begins", flush=True)
    published = run(plan, store, to, options=RunOptions(**arguments.get("options", {})))
    print(json.dumps({"digest": published.digest, "peak": peak_bytes()}), flush=True)


def _pod(die_at: int | None) -> None:
    from pinnace.cli import main as pinnace
    from pinnace.storage.s3 import S3Store

    if die_at is not None:
        _die_at(S3Store, die_at)
    sys.argv = ["pinnace", "merge", "run"]
    pinnace()


def _die_at(store: Any, at: int) -> None:
    """Kills the process before its `at`-th request that writes."""
    lock, count = threading.Lock(), 0

    def deadly(request: Any) -> Any:
        def call(*arguments: Any, **named: Any) -> Any:
            nonlocal count
            with lock:
                count += 1
                if count == at:
                    os.kill(os.getpid(), 9)
            return request(*arguments, **named)

        return call

    for name in ("put", "begin_parts", "put_part", "finish_parts", "delete"):
        setattr(store, name, deadly(getattr(store, name)))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
