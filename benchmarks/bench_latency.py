"""
How long does one cached read of 4 KiB take when nothing else is outstanding?

The next request is made when the last one has ended. For whatever asks somebody else to read,
this is the price of waking a sleeping thread or process, and of being woken. What the kernel has in
its cache procaio does at once; "through a worker" is without that.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
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
    reference="asyncio.to_thread",
    full=Sizes(count=5_000, size=4096),
    quick=Sizes(count=200, size=4096),
    needs=frozenset({"file"}),
    extra=("p99",),
)
QUESTIONS = [QUESTION]


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


@QUESTION.contender("procaio, wait(), through a worker", target=at_most(0.5))
def procaio_worker(work: Work) -> Sample:
    """Make a request and wait() for it."""
    need("procaio").at_once(False)
    return procaio_wait(work)


@QUESTION.contender("procaio, wait()", target=at_most(0.5))
def procaio_wait(work: Work) -> Sample:
    """Make a request and wait() for it."""
    aio = need("procaio")
    fd = work.open()
    size = work.size
    buffer = aio.Buffer(size)
    return one_at_a_time(work, lambda offset: aio.aio_read(fd, offset, size, buffer, 0).wait())


@QUESTION.contender("os.preadv in a loop", Kind.BASELINE)
def blocking(work: Work) -> Sample:
    """Nobody is woken."""
    fd = work.open()
    buffers = [bytearray(work.size)]
    return one_at_a_time(work, lambda offset: os.preadv(fd, buffers, offset))


@QUESTION.contender("ThreadPoolExecutor", Kind.BASELINE)
def in_pool(work: Work) -> Sample:
    """Submit a call and wait for its result."""
    call = baselines.preadv_job(work, []).call
    with ThreadPoolExecutor() as pool:
        return one_at_a_time(work, lambda offset: pool.submit(call, offset).result())


reads.add_reader(QUESTION, reads.INTO_BUFFER, one_await_at_a_time, note=", await")
for reader in (*baselines.READERS, *peers.READERS):
    reads.add_reader(QUESTION, reader, one_await_at_a_time)
peers.add_perl(QUESTION, "latency.pl", lambda work: [work.data.file, work.size], Work.offsets)
