"""The merge itself: fetch, survey, merge, upload, commit."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from pinnace.storage.artifacts import Published
from pinnace.storage.insistence import Insistence
from pinnace.storage.manifest import FileEntry
from pinnace.storage.objects import ObjectStore
from pinnace.storage.uri import S3Uri
from pinnace.storage.workers import Workers, gather

from .budget import Budget, resident_bytes
from .buffers import Buffers, capacity, settle_malloc
from .commit import commit
from .compute import Compute
from .errors import Interrupted, MergeError, OutOfBudget
from .fetch import Fetcher, Fetching
from .groups import Group, cost
from .layout import Part
from .looks import Looks
from .methods import Survey
from .order import Order
from .plan import Plan
from .shards import Progress, Shards, ShardWork
from .state import Output

_SLACK = 128 << 20  # for what interpreter, libraries, heaps and boto3 still take besides buffers
_SCRATCH = 24 << 20  # of one computing thread: blocks in the compute dtype
_COORDINATORS = 24
_AHEAD = 4  # parts of a big tensor in memory at once


@dataclass(frozen=True)
class RunOptions:
    """How to run, without effect on the result.

    Attributes:
        threads: that compute; default: the processors of this process.
        transfers: requests in flight in each direction.
        verify: compare inputs with the SHA-256 in their manifests, where they have one.
        replace: an artifact that is in the output's place.
        device: `cpu`, `cuda` or `auto`.
        insist: how long to repeat requests while a store does not answer.
        memory: bytes for the whole process; default: the spec's memoryLimit.
        buffers: bytes for what is read and not yet merged; default: what `memory` leaves.
    """

    threads: int = field(default_factory=lambda: len(os.sched_getaffinity(0)))
    transfers: int = 8
    verify: bool = True
    replace: bool = False
    device: str = "auto"
    insist: Insistence = field(default_factory=Insistence)
    memory: int | None = None
    buffers: int | None = None


def run(
    plan: Plan,
    store: ObjectStore,
    to: S3Uri,
    *,
    options: RunOptions | None = None,
    progress: Callable[[Progress], None] = lambda _: None,
    stop: threading.Event | None = None,
) -> Published:
    """Merges, writes the result to the folder `to` and commits it with its manifest.

    A merge that was interrupted at any moment goes on where it was if it is run again with the same plan.

    Args:
        plan: of `make_plan`.
        store: where `to` is.
        to: an empty folder, or what an earlier attempt left.
        options: threads, memory, patience.
        progress: told after each part, from several threads.
        stop: when it is set, the merge ends with `Interrupted`, and what is uploaded stays.

    Raises:
        SourceChanged, SourceDamaged, SourcesDiffer: what was written is removed again.
        OutOfBudget: before anything is written.
        Interrupted, StorageUnavailable: the same merge can be run again.
        Conflict: something else is there.
    """
    options = options or RunOptions()
    output = Output(store, to, plan, options.insist)
    if (published := output.published()) is not None:
        return published
    merge = _Merge(plan, output, options, progress, stop or threading.Event())
    output.begin(replace=options.replace)
    try:
        return commit(plan, output, merge.weights())
    except MergeError as error:
        if not isinstance(error, Interrupted):
            output.abandon()
        raise


class _Merge:
    """One run: its threads, its memory, and what came of the shards."""

    def __init__(
        self,
        plan: Plan,
        output: Output,
        options: RunOptions,
        progress: Callable[[Progress], None],
        stop: threading.Event,
    ) -> None:
        import torch

        settle_malloc()
        torch.set_num_threads(1)  # blocks are computed side by side
        self._plan = plan
        self._options = options
        self._stop = stop
        cuda = options.device == "auto" and torch.cuda.is_available()
        self._device = "cuda" if cuda else "cpu" if options.device == "auto" else options.device
        self._compute = Compute(plan, self._device)
        self._parts = [part for shard in plan.shards for part in shard.parts]
        self._across = plan.parameters.method.across([tensor.task for tensor in plan.tensors if tensor.task])
        self._window = options.threads + options.transfers // 2
        self._part_bytes = capacity(max((part.size for shard in plan.shards for part in shard.parts), default=0))
        self._budget = Budget(self._room())
        self._lock = threading.Lock()
        self._shards = Shards(plan, output, options.insist, progress)
        self._failed: BaseException | None = None
        self._check_room()

    def weights(self) -> list[FileEntry]:
        """Makes all shards that are not there yet. Returns the entries of all, by name."""
        works = [self._shards.work(shard) for shard in self._plan.shards]
        todo = [work for work in works if work is not None]
        order = self._order = Order(
            [(work.shard.file, part.number) for work in todo for part in work.missing],
            hashed=[work.shard.file for work in todo if work.fresh],
            window=self._window,
            part_bytes=self._part_bytes,
        )
        options = self._options
        with (
            Workers(2 * options.transfers, "merge-fetch") as fetchers,
            Workers(options.threads, "merge-compute") as self._computers,
            Workers(options.transfers, "merge-upload") as self._uploaders,
            Workers(_COORDINATORS, "merge-group") as coordinators,
        ):
            buffers = Buffers(self._budget.total)
            self._fetcher = Fetcher(self._plan, fetchers, buffers, options.insist, lambda: self._failed)
            self._looks = Looks(self._plan, self._compute, self._fetcher, self._computers)
            running: list[Future[None]] = []
            try:
                pending = [(work, group) for work in todo for group in work.groups]
                looked_at = (
                    self._parts if pending and self._across else [p for _, group in pending for p in group.parts]
                )
                if options.verify:
                    self._fetcher.verify(looked_at)
                if pending and self._across:
                    self._look_across(self._across)
                for work, group in pending:
                    running.append(self._admitted(group, work, coordinators))
                    if group is work.groups[-1]:
                        mine = running[-len(work.groups) :]
                        running.append(_in_thread(self._finish, work, mine))
                for work in todo:
                    if not work.groups:  # all parts are there, only the end is missing
                        self._finish(work, [])
                gather(running)
                self._fetcher.verified()
            except BaseException as error:  # noqa: BLE001 - all threads must end before the first error goes on
                self._fail(error)
                for end in running:
                    if not end.cancel():
                        end.exception()
                order.close(error)
                raise self._failed or error from None
        return self._shards.entries

    def _admitted(self, group: Group, work: ShardWork, coordinators: Workers) -> Future[None]:
        """Starts a group once there is memory for it. Groups start in order, so none waits for a later one."""
        self._go_on()
        whole, largest = group.cost(self._plan), max(cost(self._plan, part) for part in group.parts)
        if whole <= max(self._budget.total // 2, largest):
            self._budget.acquire(whole)
            # Asked for here, in order: the digests of the inputs wait for the ranges before.
            fetched = [self._fetcher.start(part) for part in group.parts]
            return coordinators.submit(self._guarded, self._kept, group, work, fetched)
        # It does not fit: its parts are read again for each look, through a memory of its own. Later groups must not
        # be read before: the digests of the inputs need the ranges in order.
        reserved = min(_AHEAD * largest, self._budget.total)
        self._budget.acquire(reserved)
        found = self._looks.group(group, self._looks.sliding(group.parts, Budget(reserved)))
        return coordinators.submit(self._guarded, self._read_again, group, work, found, reserved)

    def _look_across(self, survey: Survey) -> None:
        reserved = min(_AHEAD * max(cost(self._plan, part) for part in self._parts), self._budget.total)
        found = self._looks.across(survey, self._looks.sliding(self._parts, Budget(reserved)))
        self._plan = self._plan.knowing(found)
        self._compute = Compute(self._plan, self._device)
        self._fetcher.plan = self._plan
        self._looks = Looks(self._plan, self._compute, self._fetcher, self._computers)

    def _guarded(self, call: Callable[..., None], *arguments: Any) -> None:
        """A failure anywhere wakes whoever waits."""
        try:
            self._go_on()
            call(*arguments)
        except BaseException as error:
            self._fail(error)
            raise

    def _go_on(self) -> None:
        """Raises what has failed elsewhere, or that somebody asked to stop."""
        if self._failed:
            raise self._failed
        if self._stop.is_set():
            raise Interrupted("the merge was asked to stop; run it again to go on")

    def _kept(self, group: Group, work: ShardWork, fetched: list[Fetching]) -> None:
        """All parts are kept until the tensor that spans them is surveyed and merged."""
        try:
            found = self._looks.group(group, lambda: fetched)
        except BaseException:
            for one in fetched:
                one.settle()
            raise
        gather([_in_thread(self._guarded, self._merged, one, work, found, self._budget) for one in fetched])

    def _read_again(self, group: Group, work: ShardWork, found: dict[int, Any], reserved: int) -> None:
        """Merges the parts of a tensor that does not fit into memory."""
        memory = Budget(reserved)
        ends = []
        for part in group.parts:
            if part.number in work.tags:
                continue
            memory.acquire(cost(self._plan, part))
            if self._failed:
                raise self._failed
            one = self._fetcher.start(part)
            ends.append(_in_thread(self._guarded, self._merged, one, work, found, memory))
        gather(ends)
        self._budget.release(reserved)

    def _merged(self, fetching: Fetching, work: ShardWork, found: dict[int, Any], memory: Budget) -> None:
        """Computes a part and uploads it. Its input goes back to `memory`."""
        part = fetching.part
        try:
            data = fetching.result()
            if part.number in work.tags:
                return
            self._order.enter(work.shard, part)
            body = self._computers.submit(self._compute.part, work.shard, data, found).result()
            del data
        finally:
            fetching.settle()
            self._fetcher.release(fetching)
            memory.release(cost(self._plan, part))
        self._order.hash(work.shard, part, body)
        tag = self._uploaders.submit(self._put, work, part, body).result()
        self._order.leave()
        self._shards.durable(work, part, tag)

    def _put(self, work: ShardWork, part: Part, body: bytearray) -> str:
        self._go_on()
        return self._shards.put(work, part, body)

    def _finish(self, work: ShardWork, ends: Sequence[Future[None]]) -> None:
        """Completes a shard once all its groups are through."""
        for end in ends:
            end.result()
        self._shards.finish(work, self._order.sha256(work.shard))

    def _fail(self, error: BaseException) -> None:
        with self._lock:
            self._failed = self._failed or error
        self._budget.close(self._failed)
        self._order.close(self._failed)
        self._fetcher.close(self._failed)

    def _room(self) -> int:
        """Bytes for input buffers: the limit without what is taken already, outputs, and scratch."""
        if self._options.buffers is not None:
            return self._options.buffers
        limit = self._options.memory or self._plan.spec.memory_bytes
        outputs = 2 * self._window * self._part_bytes  # botocore copies what it sends
        taken = resident_bytes() + _SLACK + outputs + self._options.threads * _SCRATCH
        return max(0, limit - taken)

    def _check_room(self) -> None:
        needed = max((cost(self._plan, part) for shard in self._plan.shards for part in shard.parts), default=0)
        if needed > self._budget.total:
            raise OutOfBudget(
                f"memoryLimit {self._plan.spec.memory_limit} is too small: "
                f"this merge takes {(needed - self._budget.total >> 20) + 1} MiB more"
            )


def _in_thread(call: Callable[..., None], *arguments: Any) -> Future[None]:
    """Runs a call in a thread of its own: it waits for others, which the threads of a pool must not."""
    future: Future[None] = Future()

    def target() -> None:
        if not future.set_running_or_notify_cancel():
            return
        try:
            call(*arguments)
            future.set_result(None)
        except BaseException as error:  # noqa: BLE001 - handed to whoever asks for the result
            future.set_exception(error)

    threading.Thread(target=target, name="merge-part", daemon=True).start()
    return future
