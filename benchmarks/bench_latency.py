"""
How long does one cached read of 4 KiB take when nothing else is outstanding?

The next request is made when the last one has ended. For whatever asks somebody else to read,
this is the price of waking a sleeping thread or process, and of being woken. What the kernel has in
its cache procaio does at once; "through a worker" is without that, and held against the same rings
in C that look for the result before they sleep: wait() does so for a while, and so does procaio in
an event loop, for up to 10 us. The rings that sleep at once show what that saves.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from time import perf_counter_ns
from typing import TYPE_CHECKING

from benchmarks import baselines, peers, reads
from benchmarks.harness import Kind, Question, Sizes, Work, at_most, need
from benchmarks.measure import Sample, percentile, timed, timed_async

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

QUESTION = Question(
    "latency",
    __doc__,
    unit="us, median",
    reference="os.pread in a loop",
    full=Sizes(count=5_000, size=4096),
    quick=Sizes(count=200, size=4096),
    needs=frozenset({"file"}),
    extra=("p99",),
)
QUESTIONS = [QUESTION]
WAIT_FOR_WORKER = "procaio, wait(), through a worker"
RINGS_LOOK = "C, same rings, looks before it sleeps"
RINGS_SLEEP = "C, same rings, sleeps"


def one_at_a_time(work: Work, read: Callable[[int], object]) -> Sample:
    """Measure each call of `read` with an offset."""
    times: list[int] = []

    def run(offsets: Sequence[int]) -> None:
        times.clear()
        for offset in offsets:
            start = perf_counter_ns()
            read(offset)
            times.append(perf_counter_ns() - start)

    return with_times(timed(run, work.offsets()), times)


async def one_await_at_a_time(work: Work, read: reads.AwaitOne) -> Sample:
    """Measure each await of `read` with an offset."""
    times: list[int] = []

    async def run(offsets: Sequence[int]) -> None:
        times.clear()
        for offset in offsets:
            start = perf_counter_ns()
            await read(0, offset)
            times.append(perf_counter_ns() - start)

    return with_times(await timed_async(run, work.offsets()), times)


def with_times(sample: Sample, times: Sequence[int]) -> Sample:
    """Put median and p99, in microseconds, into the sample."""
    extra = {"p99": percentile(times, 99) / 1000}
    return replace(sample, value=percentile(times, 50) / 1000, extra=extra)


@QUESTION.contender(WAIT_FOR_WORKER)
def procaio_worker(work: Work) -> Sample:
    """Make a request and wait() for it."""
    need("procaio").at_once(False)
    return procaio_wait(work)


@QUESTION.contender("procaio, wait()", target=at_most(4))
def procaio_wait(work: Work) -> Sample:
    """Make a request and wait() for it."""
    aio = need("procaio")
    fd = work.open()
    size = work.size
    buffer = aio.Buffer(size)
    return one_at_a_time(work, lambda offset: aio.aio_read(fd, offset, size, buffer, 0).wait())


@QUESTION.contender("os.pread in a loop", Kind.BASELINE)
def blocking(work: Work) -> Sample:
    """Nobody is woken."""
    fd, size = work.open(), work.size
    return one_at_a_time(work, lambda offset: os.pread(fd, size, offset))


@QUESTION.contender("os.preadv in a loop, reused buffer", Kind.BASELINE)
def blocking_buffer(work: Work) -> Sample:
    """Read without making a new object for each block."""
    fd = work.open()
    buffers = [reads.aligned(work.size)]
    return one_at_a_time(work, lambda offset: os.preadv(fd, buffers, offset))


def rings(work: Work, way: str) -> Sample:
    """Wait in that way, in C."""
    return peers.ring_limit(way, 1, "one", work.count, work.data.file)


@QUESTION.contender("ThreadPoolExecutor", Kind.BASELINE)
def in_pool(work: Work) -> Sample:
    """Submit a call and wait for its result."""
    call = baselines.preadv_job(work, []).call
    with ThreadPoolExecutor() as pool:
        return one_at_a_time(work, lambda offset: pool.submit(call, offset).result())


reads.add_reader(
    QUESTION, reads.INTO_BUFFER, one_await_at_a_time, note=", await", target=at_most(4)
)
THROUGH_WORKER = replace(reads.BY_WORKERS, name="procaio, into a Buffer, through a worker")
AWAIT_WORKER = reads.add_reader(QUESTION, THROUGH_WORKER, one_await_at_a_time, note=", await")
for reader in (*baselines.READERS, *peers.READERS):
    reads.add_reader(QUESTION, reader, one_await_at_a_time)
peers.add_perl(QUESTION, "latency.pl", lambda work: [work.data.file, work.size], Work.offsets)
for name, way in {RINGS_LOOK: "look", RINGS_SLEEP: "sleep"}.items():
    QUESTION.contender(name, Kind.BASELINE)(partial(rings, way=way))
QUESTION.aim([WAIT_FOR_WORKER, AWAIT_WORKER], at_most(1.1), RINGS_LOOK)
