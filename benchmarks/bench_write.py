"""
How fast are random writes of 4 KiB to a file in the cache?

Nothing has to be on the disk. In the second question everything has: each of 16 files is written to
and synchronised, again and again. Whoever is asked for one thing at a time does both after each
other; threads that are given a function do so without going back to the program in between.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from contextlib import asynccontextmanager
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

from benchmarks import baselines, peers, reads
from benchmarks.data import KIB, SYNCED_FILES
from benchmarks.harness import Kind, Question, Sizes, Work, at_least, check, need
from benchmarks.measure import Sample, timed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Sequence

SYNC_SHARE = 0.3  # of those that synchronise one file after the other

WRITE = Question(
    "write_4k",
    __doc__,
    unit="ops/s",
    reference="os.pwrite in a loop",
    full=Sizes(count=100_000, depth=64, size=4 * KIB),
    quick=Sizes(count=1_000, depth=64, size=4 * KIB),
    needs=frozenset({"written"}),
)
SYNC = Question(
    "write_sync",
    "How fast are writes of 4 KiB to 16 files, each followed by fdatasync?",
    unit="ops/s",
    reference="os.pwrite, os.fdatasync in a loop",
    full=Sizes(count=3_000, depth=SYNCED_FILES, size=4 * KIB),
    quick=Sizes(count=64, depth=SYNCED_FILES, size=4 * KIB),
    needs=frozenset({"written"}),
)
QUESTIONS = [WRITE, SYNC]


def block(work: Work) -> bytes:
    """Give what is written."""
    return os.urandom(work.size)


def buffer(work: Work) -> Any:
    """Give it in memory that workers have too."""
    buffer = need("procaio").Buffer(work.size)
    memoryview(buffer)[:] = block(work)
    return buffer


# -- writes ----------------------------------------------------------------------------------------


def callbacks(work: Work, make: Callable[[Work], Any]) -> Sample:
    """Every callback makes the next request."""
    aio = need("procaio")
    data = make(work)
    fd = work.open_written()[0]
    size = work.size

    def run(offsets: Sequence[int]) -> None:
        aio_write = aio.aio_write
        todo = iter(offsets)
        wrong = 0

        def done(count: int) -> None:
            nonlocal wrong
            if count != size:
                wrong += 1
            for offset in todo:
                aio_write(fd, offset, size, data, 0, done)
                return

        for offset in islice(todo, work.depth):
            aio_write(fd, offset, size, data, 0, done)
        while aio.nreqs():
            aio.poll()
        check(wrong, 0)

    return timed(run, work.written_offsets())


register = WRITE.contender("procaio, from a Buffer", target=at_least(1.0))
register(partial(callbacks, make=buffer))
WRITE.contender("procaio, from bytes")(partial(callbacks, make=block))


@WRITE.contender("os.pwrite in a loop", Kind.BASELINE)
def blocking(work: Work) -> Sample:
    """One after the other, on one core."""
    data = block(work)
    fd = work.open_written()[0]

    def run(offsets: Sequence[int]) -> None:
        pwrite = os.pwrite
        for offset in offsets:
            pwrite(fd, data, offset)

    return timed(run, work.written_offsets())


def job(work: Work) -> baselines.Job:
    """Give os.pwrite as what threads are to call."""
    data = block(work)
    fd = work.open_written()[0]
    return baselines.Job(lambda offset: os.pwrite(fd, data, offset), work.written_offsets())


@asynccontextmanager
async def _by_procaio(work: Work) -> AsyncIterator[reads.AwaitOne]:
    aio = need("procaio")
    data = buffer(work)
    fd = work.open_written()[0]
    yield lambda _, offset: aio.aio_write(fd, offset, work.size, data)


@asynccontextmanager
async def _by_aiofile(work: Work) -> AsyncIterator[reads.AwaitOne]:
    data = block(work)
    async with need("aiofile").AIOFile(work.data.written[0], "rb+") as file:
        yield lambda _, offset: file.write_bytes(data, offset)


@asynccontextmanager
async def _by_caio(work: Work, module: str) -> AsyncIterator[reads.AwaitOne]:
    data = block(work)
    fd = work.open_written()[0]
    async with peers.caio_context(module) as context:
        yield lambda _, offset: context.write(data, fd, offset)


@asynccontextmanager
async def _by_aiofiles(work: Work) -> AsyncIterator[reads.AwaitOne]:
    """Seek and write, in a file for each lane because its position is state."""
    data = block(work)
    async with peers.aiofiles_for_lanes(work, work.data.written[0], "rb+") as files:

        async def one(lane: int, offset: int) -> object:
            await files[lane].seek(offset)
            return await files[lane].write(data)

        yield one


WRITERS = [
    reads.Reader("procaio, from a Buffer, await", Kind.PROCAIO, _by_procaio),
    reads.Reader("aiofile", Kind.PEER, _by_aiofile, 0.3),
    *(
        reads.Reader(name, Kind.PEER, partial(_by_caio, module=module), 0.3)
        for name, module in peers.CAIO_VARIANTS.items()
    ),
    reads.Reader("aiofiles", Kind.PEER, _by_aiofiles, 0.05),
]

baselines.add_pool(WRITE, job, baselines.THREADS_SHARE)
baselines.add_asyncio_threads(WRITE, job, baselines.THREADS_SHARE)
for writer in WRITERS:
    reads.add_reader(WRITE, writer, reads.awaiting(Work.written_offsets), share=writer.share)
peers.add_perl(
    WRITE,
    "write.pl",
    lambda work: [work.depth, work.size, work.data.written[0]],
    Work.written_offsets,
)


# -- and each of them on the disk ------------------------------------------------------------------

SYNC_CALLBACKS = "procaio, callbacks"


@SYNC.contender(SYNC_CALLBACKS)
def sync_callbacks(work: Work) -> Sample:
    """Of each file, the callback of a write synchronises, and that of this makes the next write."""
    aio = need("procaio")
    data = buffer(work)
    fds = work.open_written()
    size = work.size

    def run(offsets: Sequence[int]) -> None:
        todo = iter(offsets)
        wrong = 0

        def start(fd: int) -> None:
            def written(count: int) -> None:
                nonlocal wrong
                wrong += count != size
                aio.aio_fdatasync(fd, synced)

            def synced(result: int) -> None:
                nonlocal wrong
                wrong += result != 0
                write()

            def write() -> None:
                for offset in todo:
                    aio.aio_write(fd, offset, size, data, 0, written)
                    return

            write()

        for fd in fds:
            start(fd)
        while aio.nreqs():
            aio.poll()
        check(wrong, 0)

    return timed(run, work.written_offsets())


@SYNC.contender("os.pwrite, os.fdatasync in a loop", Kind.BASELINE, share=SYNC_SHARE)
def sync_blocking(work: Work) -> Sample:
    """One file after the other."""
    job = sync_job(work)

    def run(offsets: Sequence[int]) -> None:
        for offset in offsets:
            job.call(offset)

    return timed(run, job.items)


def sync_job(work: Work) -> baselines.Job:
    """Give both calls as what threads are to do, each with a file that is free."""
    data = block(work)
    free = deque(work.open_written())

    def call(offset: int) -> None:
        fd = free.popleft()
        os.pwrite(fd, data, offset)
        os.fdatasync(fd)
        free.append(fd)

    return baselines.Job(call, work.written_offsets())


def each_awaited(
    work: Work, write: Callable[[Any, int, int], Any], sync: Callable[[int], Any], data: Any
) -> Coroutine[Any, Any, Sample]:
    """Await a write and fdatasync of the file of a lane; `write` gets data, file and offset."""
    fds = work.open_written()

    async def one(lane: int, offset: int) -> None:
        check(await write(data, fds[lane], offset), work.size)
        await sync(fds[lane])

    return reads.in_tasks(work.depth, work.written_offsets(), one)


@SYNC.contender("procaio, await in asyncio")
def sync_await(work: Work) -> Sample:
    """Two requests for each."""
    aio = need("procaio")

    def write(data: Any, fd: int, offset: int) -> Any:
        return aio.aio_write(fd, offset, work.size, data)

    return asyncio.run(each_awaited(work, write, aio.aio_fdatasync, buffer(work)))


def sync_caio(work: Work, module: str) -> Sample:
    """Two requests for each."""

    async def main() -> Sample:
        async with peers.caio_context(module) as context:
            return await each_awaited(work, context.write, context.fdsync, block(work))

    return asyncio.run(main())


POOLS = baselines.add_pool(SYNC, sync_job)
THREADS = baselines.add_asyncio_threads(SYNC, sync_job, 1.0)
for name, module in peers.CAIO_VARIANTS.items():
    SYNC.contender(name, Kind.PEER)(partial(sync_caio, module=module))
PERL = peers.add_perl(
    SYNC, "sync.pl", lambda work: [work.size, *work.data.written], Work.written_offsets
)
SYNC.aim(SYNC_CALLBACKS, at_least(1.0), PERL[8])
SYNC.aim(
    SYNC_CALLBACKS, at_least(1.0), "the best pool of threads", {*POOLS, *THREADS, *PERL.values()}
)
