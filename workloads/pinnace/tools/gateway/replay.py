"""Calls recorded under a key and served again: deterministic tests of agents, at no cost."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pinnace.tools.gateway.cache import canonical
from pinnace.tools.gateway.store import NoStore, Store
from pinnace.tools.outcome import CallError, Outcome, ToolResult

log = logging.getLogger(__name__)

Mode = Literal["off", "record", "replay"]
KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_MAX_KEYS = 256  # recordings kept in memory


@dataclass
class Recording:
    """What was recorded under one key: the results of each distinct call, in the order that they came."""

    results: dict[str, list[dict[str, Any]]] = field(default_factory=dict)


@dataclass
class Run:
    """One pass over a recording: the n-th time that a call is made it gets the n-th result, in the end the last one."""

    mode: Mode
    key: str
    seen: dict[str, int] = field(default_factory=dict)


class Recordings:
    """Recordings of all tenants. They live in S3, if there is a store, else in this process only."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._known: OrderedDict[str, Recording] = OrderedDict()
        self._writes: set[asyncio.Task[None]] = set()

    async def begin(self, mode: Mode, key: str, tenant: str) -> Run:
        """Start recording (anew) or replaying. Raises `ValueError` for a key that can't be a name."""
        if mode == "off":
            return Run("off", "")
        if not KEY.fullmatch(key):
            raise ValueError("a replay key has at most 128 letters, digits, '.', '_' and '-'")
        run = Run(mode, f"{tenant}/{key}")
        if mode == "record":
            self._keep(run.key, Recording())
        elif self.store.uri or run.key not in self._known:
            await self.settle()
            self._keep(run.key, await self._load(run.key))  # anew: another gateway may have recorded meanwhile
        return run

    def record(self, run: Run, tool: str, arguments: Mapping[str, Any], result: ToolResult) -> None:
        """Keep a result that the tool gave."""
        call = canonical(tool, arguments)
        recording = self._known.get(run.key)
        if recording is None:
            recording = Recording()
            self._keep(run.key, recording)
        results = recording.results.setdefault(call, [])
        results.append(result.to_json())
        if self.store.uri:
            path = f"recordings/{run.key}/{call}-{len(results) - 1:06d}.json"
            task = asyncio.create_task(self._write(path, results[-1]))
            self._writes.add(task)
            task.add_done_callback(self._writes.discard)

    def replay(self, run: Run, tool: str, arguments: Mapping[str, Any]) -> ToolResult:
        """What was recorded for this call."""
        call = canonical(tool, arguments)
        results = (self._known.get(run.key) or Recording()).results.get(call)
        if not results:
            told = f"replay {run.key.partition('/')[2]!r} has no such call of {tool!r}: record it first"
            return ToolResult(Outcome.UNAVAILABLE, error=CallError(told))
        turn = run.seen.get(call, 0)
        run.seen[call] = turn + 1
        result = ToolResult.from_json(results[min(turn, len(results) - 1)])
        return ToolResult(result.outcome, result.content, result.structured, result.error, {"replayed": True})

    async def settle(self) -> None:
        """Until everything that was recorded so far is in S3."""
        await asyncio.gather(*self._writes)

    def _keep(self, key: str, recording: Recording) -> None:
        self._known[key] = recording
        self._known.move_to_end(key)
        if len(self._known) > _MAX_KEYS:
            self._known.popitem(last=False)

    async def _load(self, key: str) -> Recording:
        if not self.store.uri:
            return Recording()
        results: dict[str, list[dict[str, Any]]] = {}
        for path, content in sorted((await self.store.read_all(f"recordings/{key}")).items()):
            results.setdefault(path.rpartition("-")[0], []).append(json.loads(content))
        return Recording(results)

    async def _write(self, path: str, value: Mapping[str, Any]) -> None:
        try:
            await self.store.write(path, json.dumps(value).encode())
        except NoStore as error:
            log.warning("a recorded call is only in this gateway's memory: %s", error)
