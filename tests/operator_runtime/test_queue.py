"""The work queue keeps its promises: nothing twice, nothing lost, failures slow down."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st
from pinnace_operator.runtime.queue import Key, WorkQueue

A, B = Key("SFTJob", "team", "a"), Key("SFTJob", "team", "b")


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


async def test_a_key_added_twice_is_given_once() -> None:
    queue = WorkQueue()
    queue.add(A)
    queue.add(A)
    assert await queue.get() == A
    assert queue.depth() == 1
    queue.done(A)
    assert queue.depth() == 0


async def test_a_key_added_while_its_worker_runs_comes_again_after_it() -> None:
    queue = WorkQueue()
    queue.add(A)
    await queue.get()
    queue.add(A)
    queue.add(B)
    assert await queue.get() == B, "A belongs to its worker still"
    queue.done(A)
    assert await queue.get() == A


async def test_a_delayed_add_comes_when_it_is_due_and_the_earliest_counts() -> None:
    clock = Clock()
    queue = WorkQueue(clock=clock)
    queue.add_after(A, 30)
    queue.add_after(A, 5)
    queue.add_after(A, 60)
    clock.now += 4
    assert queue.depth() == 0
    clock.now += 1
    assert await queue.get() == A
    queue.done(A)
    clock.now += 100
    queue.add(B)
    assert await queue.get() == B, "the later adds of A were merged into the first"


async def test_a_waiting_worker_wakes_for_a_delayed_add() -> None:
    queue = WorkQueue()
    getting = asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    queue.add_after(A, 0.01)
    assert await asyncio.wait_for(getting, 5) == A


async def test_failures_in_a_row_wait_longer_up_to_the_cap_and_success_forgets_them() -> None:
    queue = WorkQueue(base=1, cap=10)
    assert [queue.retry(A) for _ in range(6)] == [1, 2, 4, 8, 10, 10]
    assert queue.failures(A) == 6
    queue.succeeded(A)
    assert queue.retry(A) == 1


async def test_a_retry_waits_at_least_as_long_as_the_server_asked() -> None:
    assert WorkQueue(base=1).retry(A, at_least=30) == 30


async def test_age_of_the_oldest_key_counts_waiting_and_working() -> None:
    clock = Clock()
    queue = WorkQueue(clock=clock)
    assert queue.oldest() == 0
    queue.add(A)
    clock.now += 3
    queue.add(B)
    await queue.get()
    clock.now += 2
    assert queue.oldest() == 2, "A since its worker has it, B since it was added: both 2 s"
    clock.now += 1
    assert queue.oldest() == 3


async def test_a_forgotten_key_does_not_come() -> None:
    clock = Clock()
    queue = WorkQueue(clock=clock)
    queue.add_after(A, 1)
    queue.retry(A)
    queue.forget(A)
    clock.now += 100
    queue.add(B)
    assert await queue.get() == B
    assert queue.depth() == 1
    assert queue.known() == {B}


@given(st.lists(st.tuples(st.sampled_from(["add", "later", "retry", "get", "done"]), st.integers(0, 3)), max_size=60))
def test_no_add_is_ever_lost_and_no_key_has_two_workers(steps: list[tuple[str, int]]) -> None:
    async def scenario() -> None:
        clock = Clock()
        queue = WorkQueue(clock=clock, cap=50)
        owed: set[Key] = set()  # added since their last get
        active: list[Key] = []
        for what, number in steps:
            key = Key("SFTJob", "team", str(number))
            clock.now += 1
            if what == "add":
                queue.add(key)
                owed.add(key)
            elif what == "later":
                queue.add_after(key, number)
                owed.add(key)
            elif what == "retry":
                queue.retry(key)
                owed.add(key)
            elif what == "done" and active:
                queue.done(active.pop(0))
            elif what == "get" and queue.depth() > len(active):
                got = await queue.get()
                assert got not in active
                active.append(got)
                owed.discard(got)
        for each in active:
            queue.done(each)
        clock.now += 1000
        while owed:
            got = await asyncio.wait_for(queue.get(), 1)
            owed.discard(got)
            queue.done(got)

    asyncio.run(scenario())
