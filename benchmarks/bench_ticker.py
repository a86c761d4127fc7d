"""
Do other tasks in asyncio get their turn while reads run as fast as they can?

A task sleeps for 1 ms again and again, and notes how late it is each time. The reads are cached
and hardly ever wait, so there is always something for the loop to do: what is measured is how long
the loop is away when it does it. Perl has a loop of its own, without this idle line: not here.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import cycle
from time import perf_counter
from typing import TYPE_CHECKING, Protocol

from benchmarks import baselines, peers, reads
from benchmarks.data import MIB
from benchmarks.harness import Kind, Question, Sizes, Work, at_most, check, need
from benchmarks.measure import Meter, Sample, percentile

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    Measure = Callable[[float], Awaitable[list[float]]]  # for so many seconds; in microseconds

TICK = 0.001
OFFSETS = 10_000

SMALL = Question(
    "ticker",
    __doc__,
    unit="us late, p99",
    reference="idle loop",
    full=Sizes(depth=64, size=4096, seconds=1.5),
    quick=Sizes(depth=64, size=4096, seconds=0.05),
    needs=frozenset({"file"}),
    extra=("reads/s",),
)
MANY = replace(
    SMALL,
    name="ticker_1000",
    text="Do they get it while 1,000 reads are in flight?",
    full=Sizes(depth=1000, size=4096, seconds=1.5),
    quick=Sizes(depth=1000, size=4096, seconds=0.05),
    contenders=[],
    aims=[],
)
LARGE = replace(
    SMALL,
    name="ticker_1m",
    text="Do they get it while the reads are of 1 MiB?",
    full=Sizes(depth=8, size=MIB, seconds=1.5),
    quick=Sizes(depth=8, size=MIB, seconds=0.05),
    contenders=[],
    aims=[],
)
QUESTIONS = [SMALL, MANY, LARGE]


class Load(Protocol):
    """Something that reads without a pause until it is stopped, and counts."""

    count: int

    async def stop(self) -> None:
        """Let what is outstanding end. Raises what went wrong in it."""


class NoLoad:
    """Nothing is read."""

    count = 0

    async def stop(self) -> None:
        """There is nothing to stop."""


class Tasks:
    """Tasks that await one read after the other."""

    def __init__(self, work: Work, one: reads.AwaitOne) -> None:
        """Start them, in the running loop."""
        self._one = one
        self._offsets = cycle(work.data.offsets(OFFSETS, work.size))
        self._running = True
        self.count = 0
        self._tasks = [asyncio.ensure_future(self._read(lane)) for lane in range(work.depth)]

    async def _read(self, lane: int) -> None:
        one = self._one
        for offset in self._offsets:
            await one(lane, offset)
            self.count += 1
            if not self._running:
                return

    async def stop(self) -> None:
        """Let every task end the read it is at."""
        self._running = False
        await asyncio.gather(*self._tasks)


class Callbacks:
    """Callbacks of procaio that make the next request; the loop watches its one descriptor."""

    def __init__(self, work: Work) -> None:
        """Make the first requests, and let the running loop call back."""
        self._aio = need("procaio")
        self._fd = work.open()
        self._size = work.size
        self._buffer = self._aio.Buffer(work.depth * work.size)
        self._offsets = cycle(work.data.offsets(OFFSETS, work.size))
        self._running = True
        self._ended = asyncio.Event()
        self._wrong = 0
        self.count = 0
        self._attachment = self._aio.attach()
        for lane in range(work.depth):
            self._start(lane * work.size)

    def _start(self, place: int) -> None:
        def done(count: int) -> None:
            self.count += 1
            self._wrong += count != self._size
            if self._running:
                read()
            elif not self._aio.nreqs():
                self._ended.set()

        def read() -> None:
            offset = next(self._offsets)
            self._aio.aio_read(self._fd, offset, self._size, self._buffer, place, done)

        read()

    async def stop(self) -> None:
        """Let all requests end."""
        self._running = False
        await self._ended.wait()
        self._attachment.detach()
        check(self._wrong, 0)


async def ticks(seconds: float) -> list[float]:
    """Sleep for a tick again and again. Gives how late each one ended, in microseconds."""
    late = []
    now = perf_counter()
    end = now + seconds
    while now < end:
        await asyncio.sleep(TICK)
        before, now = now, perf_counter()
        late.append((now - before - TICK) * 1e6)
    return late


async def late_under(load: Load, work: Work, measure: Measure) -> Sample:
    """Measure how late something is under a load, after a tenth of the time to warm up."""
    await measure(work.seconds / 10)
    before = load.count
    with Meter() as meter:
        late = await measure(work.seconds)
    count = load.count - before
    await load.stop()
    extra = {"p50": percentile(late, 50), "max": max(late), "reads/s": count / meter.seconds}
    return meter.sample(count, percentile(late, 99), **extra)


async def under_tasks(work: Work, one: reads.AwaitOne, measure: Measure = ticks) -> Sample:
    """Measure the ticker, or something else, while all tasks read."""
    return await late_under(Tasks(work, one), work, measure)


def under_nothing(work: Work, measure: Measure = ticks, module: str = "asyncio") -> Sample:
    """Measure it alone. `module` has the `run` of the event loop."""
    sample: Sample = need(module).run(late_under(NoLoad(), work, measure))
    return sample


def under_callbacks(work: Work, measure: Measure = ticks, module: str = "asyncio") -> Sample:
    """Measure it while callbacks of procaio read."""

    async def main() -> Sample:
        return await late_under(Callbacks(work), work, measure)

    sample: Sample = need(module).run(main())
    return sample


@asynccontextmanager
async def _blocking(work: Work) -> AsyncIterator[reads.AwaitOne]:
    """Read in the loop itself, and let the others have their turn after each."""
    fd = work.open()
    buffers = [reads.aligned(work.size)]

    async def one(_: int, offset: int) -> int:
        count = os.preadv(fd, buffers, offset)
        await asyncio.sleep(0)
        return count

    yield one


BLOCKING = reads.Reader("os.preadv in the loop", Kind.BASELINE, _blocking)

for question in QUESTIONS:
    bound = at_most(1.5 if question is LARGE else 1.25)
    question.contender("idle loop", Kind.BASELINE)(under_nothing)
    reads.add_reader(question, reads.INTO_BUFFER, under_tasks, target=bound)
    callbacks = question.contender("procaio, into a Buffer, callbacks", target=bound)
    callbacks(under_callbacks)
    for reader in (BLOCKING, *baselines.READERS, *peers.READERS):
        reads.add_reader(question, reader, under_tasks)
