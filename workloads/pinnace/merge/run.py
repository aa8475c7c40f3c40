"""The merge itself: fetch, survey, merge, upload, commit."""

from __future__ import annotations

import hashlib
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

import numpy as np

from pinnace.storage.artifacts import Published
from pinnace.storage.errors import NotFound
from pinnace.storage.insistence import Insistence
from pinnace.storage.manifest import FileEntry
from pinnace.storage.objects import ObjectStore
from pinnace.storage.uri import S3Uri
from pinnace.storage.workers import Workers, gather

from .budget import Budget, resident_bytes
from .buffers import Buffers, capacity, settle_malloc
from .commit import commit
from .compute import Compute, join
from .errors import Interrupted, MergeError, OutOfBudget
from .fetch import Fetcher, Fetching
from .groups import Group, cost, groups
from .layout import Part, Shard
from .methods import Measure, Survey
from .order import Order
from .plan import Plan
from .state import Output, Upload

_SLACK = 128 << 20  # for what interpreter, libraries, heaps and boto3 still take besides buffers
_SCRATCH = 24 << 20  # of one computing thread: blocks in the compute dtype
_COORDINATORS = 24
_AHEAD = 4  # parts of a big tensor in memory at once
_READ_BACK = 16 << 20


@dataclass(frozen=True)
class Progress:
    """How far it is: `bytes` of the output are durable, of `total`; `seconds` since the start; files that are done."""

    bytes: int
    total: int
    seconds: float
    shards: tuple[FileEntry, ...] = ()


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
        self._output = output
        self._options = options
        self._progress = progress
        self._stop = stop
        self._began = monotonic()
        cuda = options.device == "auto" and torch.cuda.is_available()
        self._device = "cuda" if cuda else "cpu" if options.device == "auto" else options.device
        self._compute = Compute(plan, self._device)
        self._parts = [part for shard in plan.shards for part in shard.parts]
        self._across = plan.parameters.method.across([tensor.task for tensor in plan.tensors if tensor.task])
        self._window = options.threads + options.transfers // 2
        self._part_bytes = capacity(max((part.size for shard in plan.shards for part in shard.parts), default=0))
        self._budget = Budget(self._room())
        self._lock = threading.Lock()
        self._done_bytes = 0
        self._entries: list[FileEntry] = []
        self._failed: BaseException | None = None
        self._check_room()

    def weights(self) -> list[FileEntry]:
        """Makes all shards that are not there yet. Returns the entries of all, by name."""
        works = [self._work(shard) for shard in self._plan.shards]
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
        return sorted(self._entries, key=lambda entry: entry.path)

    def _work(self, shard: Shard) -> _ShardWork | None:
        """What is left to do for a shard, None if it is done."""
        entry = self._output.done(shard)
        if entry is not None:
            self._finished(entry)
            return None
        if self._output.whole(shard):
            self._record(shard, None)
            return None
        work = _ShardWork(self._plan, shard, self._output.upload(shard))
        self._done_bytes += sum(part.size for part in shard.parts if part.number in work.tags)
        return work

    def _admitted(self, group: Group, work: _ShardWork, coordinators: Workers) -> Future[None]:
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
        found = self._surveyed(group, self._sliding(group.parts, Budget(reserved)))
        return coordinators.submit(self._guarded, self._read_again, group, work, found, reserved)

    def _look_across(self, survey: Survey) -> None:
        """Reads everything, as often as the method wants, to find out what concerns all tensors together."""
        measure, check = next(survey), True
        reserved = min(_AHEAD * max(cost(self._plan, part) for part in self._parts), self._budget.total)
        try:
            while True:
                joined = np.zeros(0)
                for one in self._sliding(self._parts, Budget(reserved))():
                    data = one.result()
                    places = self._plan.places(data.part)
                    for span, place in zip(data.part.spans, places, strict=True):
                        if self._plan.tensors[span.tensor].task and span.end > span.start:
                            look = self._computers.submit(
                                self._compute.measure, measure, data, span, place, check=check
                            )
                            joined = join(measure, joined if joined.size else None, look.result())
                check = False
                measure = survey.send(joined)
        except StopIteration as end:
            self._plan = self._plan.knowing(end.value)
            self._compute = Compute(self._plan, self._device)
            self._fetcher.plan = self._plan

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

    def _kept(self, group: Group, work: _ShardWork, fetched: list[Fetching]) -> None:
        """All parts are kept until the tensor that spans them is surveyed and merged."""
        try:
            found = self._surveyed(group, lambda: fetched)
        except BaseException:
            for one in fetched:
                one.settle()
            raise
        gather([_in_thread(self._guarded, self._merged, one, work, found, self._budget) for one in fetched])

    def _read_again(self, group: Group, work: _ShardWork, found: dict[int, Any], reserved: int) -> None:
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

    def _sliding(self, wanted: Sequence[Part], memory: Budget) -> Callable[[], Iterator[Fetching]]:
        """Reads parts one after the other, a few ahead; each is released when the next is asked for."""

        def parts() -> Iterator[Fetching]:
            ahead: deque[Fetching] = deque()
            rest = deque(wanted)
            held = 0
            while rest or ahead:
                while rest and held + cost(self._plan, rest[0]) <= memory.total:
                    held += cost(self._plan, rest[0])
                    ahead.append(self._fetcher.start(rest.popleft()))
                one = ahead.popleft()
                try:
                    yield one
                finally:
                    one.settle()
                    self._fetcher.release(one)
                held -= cost(self._plan, one.part)

        return parts

    def _surveyed(self, group: Group, fetched: Callable[[], Iterable[Fetching]]) -> dict[int, Any]:
        """What must be known about the tensor that spans the group."""
        tensor = group.tensor
        if tensor is None:
            return {}
        survey = self._plan.parameters.method.survey(self._plan.tensors[tensor].merged)
        check = True
        try:
            measure = next(survey)
            while True:
                result = self._measured(tensor, measure, fetched(), check=check)
                check = False
                measure = survey.send(result)
        except StopIteration as end:
            return {tensor: end.value}

    def _measured(self, tensor: int, measure: Measure, fetched: Iterable[Fetching], *, check: bool) -> Any:
        """One look at all parts, joined in their order."""
        joined = None
        looks: deque[Future[Any]] = deque()
        kept = isinstance(fetched, list)
        for one in fetched:
            looks.append(self._look(tensor, measure, one, check=check))
            while looks and not kept:  # the next part takes this one's memory
                joined = join(measure, joined, looks.popleft().result())
        for look in looks:
            look.exception()
        for look in looks:
            joined = join(measure, joined, look.result())
        return joined

    def _look(self, tensor: int, measure: Measure, fetching: Fetching, *, check: bool) -> Future[Any]:
        data = fetching.result()
        spans = zip(data.part.spans, self._plan.places(data.part), strict=True)
        span, places = next((span, places) for span, places in spans if span.tensor == tensor)
        return self._computers.submit(self._compute.measure, measure, data, span, places, check=check)

    def _merged(self, fetching: Fetching, work: _ShardWork, found: dict[int, Any], memory: Budget) -> None:
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
        with self._lock:
            work.tags[part.number] = tag
            self._done_bytes += part.size
        self._report()

    def _put(self, work: _ShardWork, part: Part, body: bytearray) -> str:
        self._go_on()
        uri = self._output.uri / work.shard.file
        return self._options.insist(lambda: self._output.store.put_part(uri, work.upload_id, part.number, body))

    def _finish(self, work: _ShardWork, ends: Sequence[Future[None]]) -> None:
        """Completes a shard once all its groups are through."""
        for end in ends:
            end.result()
        uri = self._output.uri / work.shard.file
        tags = [work.tags[part.number] for part in work.shard.parts]
        try:
            self._options.insist(lambda: self._output.store.finish_parts(uri, work.upload_id, tags))
        except NotFound:
            # Another attempt may have completed it, or this one, whose answer was lost.
            if not self._output.whole(work.shard):
                raise
        self._record(work.shard, self._order.sha256(work.shard))

    def _record(self, shard: Shard, sha256: str | None) -> None:
        """Notes a finished shard. Its digest can't go on where a dead attempt stopped: then it is read back."""
        entry = FileEntry(path=shard.file, size=shard.size, sha256=sha256 or self._read_back(shard))
        with self._lock:
            self._output.record(entry)
        self._finished(entry)

    def _finished(self, entry: FileEntry) -> None:
        with self._lock:
            self._entries.append(entry)
        self._report()

    def _read_back(self, shard: Shard) -> str:
        digest, uri = hashlib.sha256(), self._output.uri / shard.file
        body = memoryview(bytearray(min(_READ_BACK, shard.size)))
        for start in range(0, shard.size, _READ_BACK):
            piece = body[: min(_READ_BACK, shard.size - start)]
            self._options.insist(
                lambda start=start, piece=piece: self._output.store.read_into(uri, start, piece)  # type: ignore[misc]  # mypy can't infer lambdas with defaults
            )
            digest.update(piece)
        return digest.hexdigest()

    def _fail(self, error: BaseException) -> None:
        with self._lock:
            self._failed = self._failed or error
        self._budget.close(self._failed)
        self._order.close(self._failed)
        self._fetcher.close(self._failed)

    def _report(self) -> None:
        with self._lock:
            done = Progress(self._done_bytes, self._plan.output_bytes, monotonic() - self._began, tuple(self._entries))
        self._progress(done)

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


class _ShardWork:
    """One shard while it is made: the tags of its parts, and the groups that still have something to do."""

    def __init__(self, plan: Plan, shard: Shard, upload: Upload) -> None:
        self.shard = shard
        self.upload_id = upload.upload_id
        self.tags = dict(upload.parts)
        self.fresh = not self.tags
        self.missing = [part for part in shard.parts if part.number not in self.tags]
        self.groups = [
            group for group in groups(plan, shard) if any(part.number not in self.tags for part in group.parts)
        ]


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
