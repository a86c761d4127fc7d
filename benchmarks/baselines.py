"""
The same work with Python's standard library: threads, with and without asyncio.

A blocking loop is the thing most others are held against. It is written out in each question, as
fast as Python allows, without a function call that it does not need.

Not here: packages that have to be installed (`peers`).
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from benchmarks.harness import Kind, Question, Work
from benchmarks.measure import Sample, timed
from benchmarks.reads import AwaitOne, Reader, aligned, in_tasks

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable
    from concurrent.futures import Executor

Loop = Callable[[Sequence[Any]], object]  # does something with each of the items

POOL = "ThreadPoolExecutor"
SHARES = 2
IN_SHARES = f"{SHARES} threads, each its share"
THREADS_SHARE = 0.1  # a thread takes 10 to 50 times as long as the fast ones for each operation


@dataclass(frozen=True)
class Job:
    """A blocking call and what to call it with, item after item."""

    call: Callable[[Any], object]
    items: Sequence[Any]


def preadv_loop(work: Work) -> Loop:
    """Give a loop of os.preadv at offsets, one after the other, into one buffer."""
    fd = work.open()
    buffers = [aligned(work.size)]

    def run(offsets: Sequence[int]) -> None:
        preadv = os.preadv
        for offset in offsets:
            preadv(fd, buffers, offset)

    return run


def preadv_job(work: Work, items: Sequence[int]) -> Job:
    """Give os.preadv as what threads are to call, each call with a buffer that is free."""
    fd = work.open()
    free = deque([aligned(work.size)] for _ in range(work.depth))

    def call(offset: int) -> None:
        buffers = free.pop()
        os.preadv(fd, buffers, offset)
        free.append(buffers)

    return Job(call, items)


def add_shares(
    question: Question, loop: Callable[[Work], Loop], items: Callable[[Work], Sequence[Any]]
) -> str:
    """
    Register threads that share the items, and give the name of the contender.

    Each has a loop of its own: nobody is asked for a single item, so nothing is paid for that.
    """

    def measure(work: Work) -> Sample:
        loops = [loop(work) for _ in range(SHARES)]
        return timed(partial(in_shares, loops), items(work))

    question.contender(IN_SHARES, Kind.BASELINE)(measure)
    return IN_SHARES


def in_shares(loops: Sequence[Loop], items: Sequence[Any]) -> None:
    """Let each loop do its share of the items in a thread of its own."""
    errors: list[BaseException] = []

    def run(loop: Loop, share: Sequence[Any]) -> None:
        try:
            loop(share)
        except BaseException as error:  # noqa: BLE001  raised again by who has started the thread
            errors.append(error)

    ends = [len(items) * number // len(loops) for number in range(len(loops) + 1)]
    threads = [
        threading.Thread(target=run, args=(loop, items[begin:end]))
        for loop, begin, end in zip(loops, ends, ends[1:], strict=False)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def with_callbacks(executor: Executor, depth: int, job: Job, items: Sequence[Any]) -> None:
    """Keep `depth` calls in the executor, with a callback for each."""
    free = threading.Semaphore(depth)
    errors: list[BaseException] = []

    def done(future: Future[Any]) -> None:
        error = future.exception()
        if error is not None:
            errors.append(error)
        free.release()

    for item in items:
        free.acquire()
        executor.submit(job.call, item).add_done_callback(done)
    for _ in range(depth):
        free.acquire()
    if errors:
        raise errors[0]


def add_pool(
    question: Question, prepare: Callable[[Work], Job], share: float = 1.0
) -> frozenset[str]:
    """
    Register ThreadPoolExecutor, with as many threads as it likes, and with one.

    Gives the names of the contenders, as all functions do that register some.
    """

    def in_pool(work: Work, threads: int | None) -> Sample:
        job = prepare(work)
        with ThreadPoolExecutor(threads) as pool:
            return timed(lambda part: with_callbacks(pool, work.depth, job, part), job.items)

    names = {f"{POOL}{note}": threads for threads, note in {None: "", 1: ", 1 thread"}.items()}
    for name, threads in names.items():
        register = question.contender(name, Kind.BASELINE, share=share)
        register(partial(in_pool, threads=threads))
    return frozenset(names)


def in_executor(call: Callable[..., object], *arguments: object) -> Awaitable[object]:
    """Have a thread of the running loop call something."""
    return asyncio.get_running_loop().run_in_executor(None, call, *arguments)


ASYNCIO_THREADS: dict[str, Callable[..., Awaitable[object]]] = {
    "asyncio.to_thread": asyncio.to_thread,
    "asyncio run_in_executor": in_executor,
}


def add_asyncio_threads(
    question: Question, prepare: Callable[[Work], Job], share: float
) -> frozenset[str]:
    """Register asyncio's ways to have a thread do the job."""

    def run(work: Work, way: Callable[..., Awaitable[object]]) -> Sample:
        job = prepare(work)
        return asyncio.run(
            in_tasks(work.depth, job.items, lambda _, item: way(job.call, item)),
        )

    for name, way in ASYNCIO_THREADS.items():
        question.contender(name, Kind.BASELINE, share=share)(partial(run, way=way))
    return frozenset(ASYNCIO_THREADS)


@asynccontextmanager
async def _in_threads(work: Work, way: Callable[..., Awaitable[object]]) -> AsyncIterator[AwaitOne]:
    """Each lane has its own buffer, used again and again."""
    fd = work.open()
    buffers = [[aligned(work.size)] for _ in range(work.depth)]
    yield lambda lane, offset: way(os.preadv, fd, buffers[lane], offset)


READERS = [
    Reader(name, Kind.BASELINE, partial(_in_threads, way=way), THREADS_SHARE)
    for name, way in ASYNCIO_THREADS.items()
]
