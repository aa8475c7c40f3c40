"""What a bridge can be told."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Launch:
    """How a child is started. `env` is all that it gets; `state_in_process` keeps it from being recycled by calls."""

    name: str
    command: tuple[str, ...]
    env: dict[str, str] = field(repr=False)
    cwd: Path
    start_seconds: float = 30.0


@dataclass(frozen=True)
class Limits:
    """Bounds of one bridge.

    Args:
        processes: children kept alive.
        concurrency: calls one child is given at a time.
        queue: calls that may wait for a child; the next one gets 503.
        call_seconds: a call's deadline when the caller says none.
        longest_seconds: the latest deadline that a caller may ask for.
        recycle_calls: calls after which a child is replaced; 0 for never.
        memory_bytes: resident size above which it is replaced; 0 for no bound.
        line_bytes: longest message of a child; a longer one is skipped, and fails the call that it answers.
        request_bytes: longest HTTP body.
        ping_seconds: how long a child that missed a deadline has to answer a ping before it counts as hung.
        backoff_first, backoff_cap: seconds between starts of a child that dies, doubled each time.
        crash_loop: deaths in a row after which `/readyz` reports a crash loop.
        stable_seconds: a child that lived this long has not crashed "in a row".
        drain_delay: seconds between failing `/readyz` and closing the port, for endpoints to be taken out of rotation.
        drain_seconds: seconds that calls in flight have to end after SIGTERM.
        check_seconds: interval of the memory check.
    """

    processes: int = 1
    concurrency: int = 8
    queue: int = 256
    call_seconds: float = 60.0
    longest_seconds: float = 3600.0
    recycle_calls: int = 0
    memory_bytes: int = 0
    line_bytes: int = 16 << 20
    request_bytes: int = 4 << 20
    ping_seconds: float = 5.0
    backoff_first: float = 0.25
    backoff_cap: float = 30.0
    crash_loop: int = 3
    stable_seconds: float = 30.0
    drain_delay: float = 2.0
    drain_seconds: float = 60.0
    check_seconds: float = 5.0
