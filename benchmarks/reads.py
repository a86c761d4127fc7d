"""
Reads: what a way to read in asyncio is, and procaio's own ways, with callbacks and with await.

A `Reader` is used by every question that awaits reads, whether many at a time, one at a time, or
in the background, and for procaio and its peers alike: what differs is only what is awaited.

The pool is as it comes, nothing set, nothing tuned. With callbacks, each one makes the next
request, so that `depth` are outstanding from the first to the last.

Whoever reads into a buffer again and again has one that begins at a page, as a Buffer does: to
16 bytes behind, where that of malloc begins if it is large, some processors copy at half the speed.

Not here: the readers of others (`baselines`, `peers`).
"""

from __future__ import annotations

import asyncio
import mmap
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from benchmarks.harness import Kind, Question, Target, Work, check, need
from benchmarks.measure import Sample, timed, timed_async

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

AwaitOne = Callable[[int, Any], Awaitable[object]]
Measure = Callable[[Work, AwaitOne], Coroutine[Any, Any, Sample]]


@dataclass(frozen=True)
class Reader:
    """
    A way to read, or to write, in asyncio.

    `open` gives a function to await, of lane and offset: there are `depth` lanes, each reads one
    block at a time. `share` is how much of many small reads it gets to do.
    """

    name: str
    kind: Kind
    open: Callable[[Work], AbstractAsyncContextManager[AwaitOne]]
    share: float = 1.0


async def tasks(depth: int, items: Sequence[Any], one: AwaitOne) -> None:
    """Await `one(lane, item)` for every item, in `depth` tasks that share the items."""
    todo = iter(items)

    async def lane(number: int) -> None:
        for item in todo:
            await one(number, item)

    await asyncio.gather(*(lane(number) for number in range(depth)))


async def in_tasks(depth: int, items: Sequence[Any], one: AwaitOne) -> Sample:
    """Measure `tasks`."""
    return await timed_async(lambda part: tasks(depth, part, one), items)


def awaiting(items: Callable[[Work], Sequence[Any]]) -> Measure:
    """Give what measures a reader in tasks that await all of these, each one after the other."""
    return lambda work, one: in_tasks(work.depth, items(work), one)


def add_reader(
    question: Question,
    reader: Reader,
    measure: Measure,
    *,
    share: float = 1.0,
    note: str = "",
    target: Target | None = None,
    module: str = "asyncio",
) -> str:
    """
    Register a reader as a contender, and give its name.

    `module` has the `run` of the event loop.
    """

    async def main(work: Work) -> Sample:
        async with reader.open(work) as one:
            check(length_of(await one(0, 0)), work.size)
            return await measure(work, one)

    name = reader.name + note
    register = question.contender(name, reader.kind, share=share, target=target)
    register(lambda work: need(module).run(main(work)))
    return name


def aligned(size: int) -> mmap.mmap:
    """Give memory to read into: it begins at a page, and all its pages are there."""
    memory = mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.write(bytes(size))
    return memory


def length_of(answer: object) -> object:
    """Give the length of a read: those into a buffer say it, the others give the bytes."""
    return len(answer) if isinstance(answer, bytes) else answer


@asynccontextmanager
async def _into_buffer(work: Work) -> AsyncIterator[AwaitOne]:
    """Each lane has its own block of one Buffer."""
    aio = need("procaio")
    fd = work.open()
    size = work.size
    buffer = aio.Buffer(work.depth * size)
    yield lambda lane, offset: aio.aio_read(fd, offset, size, buffer, lane * size)


@asynccontextmanager
async def _as_bytes(work: Work) -> AsyncIterator[AwaitOne]:
    aio = need("procaio")
    fd = work.open()
    size = work.size
    yield lambda _, offset: aio.aio_read(fd, offset, size)


@asynccontextmanager
async def _by_workers(work: Work) -> AsyncIterator[AwaitOne]:
    """Nothing is done at once."""
    need("procaio").at_once(allowed=False)
    async with _into_buffer(work) as one:
        yield one


INTO_BUFFER = Reader("procaio, into a Buffer", Kind.PROCAIO, _into_buffer)
BY_WORKERS = Reader("procaio, into a Buffer, by workers alone", Kind.PROCAIO, _by_workers)
AS_BYTES = Reader("procaio, as bytes", Kind.PROCAIO, _as_bytes)


def callbacks_into_buffer(work: Work, items: Sequence[int]) -> Sample:
    """Measure reads at the offsets, each of the outstanding ones into its own block of a Buffer."""
    aio = need("procaio")
    fd = work.open()
    size = work.size
    buffer = aio.Buffer(work.depth * size)

    def run(offsets: Sequence[int]) -> None:
        aio_read = aio.aio_read
        todo = iter(offsets)
        wrong = 0

        def start(place: int, first: int) -> None:
            def done(count: int) -> None:
                nonlocal wrong
                if count != size:
                    wrong += 1
                for offset in todo:
                    aio_read(fd, offset, size, buffer, place, done)
                    return

            aio_read(fd, first, size, buffer, place, done)

        for lane, offset in enumerate(islice(todo, work.depth)):
            start(lane * size, offset)
        while aio.nreqs():
            aio.poll()
        check(wrong, 0)

    return timed(run, items)


def callbacks_with_bytes(work: Work, items: Sequence[int]) -> Sample:
    """Measure reads at the offsets, each giving a bytes object as os.pread does."""
    aio = need("procaio")
    fd = work.open()
    size = work.size

    def run(offsets: Sequence[int]) -> None:
        aio_read = aio.aio_read
        todo = iter(offsets)
        wrong = 0

        def done(data: bytes | None) -> None:
            nonlocal wrong
            if data is None or len(data) != size:
                wrong += 1
            for offset in todo:
                aio_read(fd, offset, size, done)
                return

        for offset in islice(todo, work.depth):
            aio_read(fd, offset, size, done)
        while aio.nreqs():
            aio.poll()
        check(wrong, 0)

    return timed(run, items)
