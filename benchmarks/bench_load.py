"""
How fast are 20,000 files of 4 KiB loaded, each by its path?

A file is opened, read to its end and closed; `aio_load` does that in one request. The blocking loop
knows how long the files are, in one thread and in two, and so does one kind of the contenders in
Perl; nobody else does.
"""

from __future__ import annotations

import asyncio
import os
from itertools import islice
from typing import TYPE_CHECKING

from benchmarks.baselines import THREADS_SHARE, Job, add_asyncio_threads, add_pool, add_shares
from benchmarks.data import LOAD_BYTES
from benchmarks.harness import Kind, Question, Sizes, Work, at_least, check, need
from benchmarks.measure import Sample, timed
from benchmarks.peers import add_perl
from benchmarks.reads import in_tasks

if TYPE_CHECKING:
    from collections.abc import Sequence

BLOCKING = "os.open, os.read, os.close in a loop"
OURS = "procaio, callbacks"

QUESTION = Question(
    "load",
    __doc__,
    unit="files/s",
    reference=BLOCKING,
    full=Sizes(count=20_000, depth=64),
    quick=Sizes(count=200, depth=64),
    needs=frozenset({"loads"}),
    noun="files",
)
QUESTIONS = [QUESTION]


@QUESTION.contender(OURS, target=at_least(1.6))
def procaio_callbacks(work: Work) -> Sample:
    """Every callback makes the next request."""
    aio = need("procaio")

    def run(paths: Sequence[str]) -> None:
        aio_load = aio.aio_load
        todo = iter(paths)
        wrong = 0

        def done(data: bytes | None) -> None:
            nonlocal wrong
            if data is None or len(data) != LOAD_BYTES:
                wrong += 1
            for path in todo:
                aio_load(path, done)
                return

        for path in islice(todo, work.depth):
            aio_load(path, done)
        while aio.nreqs():
            aio.poll()
        check(wrong, 0)

    return timed(run, work.load_paths())


@QUESTION.contender("procaio, await in asyncio")
def procaio_await(work: Work) -> Sample:
    """Tasks that await one after the other."""
    aio = need("procaio")
    return asyncio.run(in_tasks(work.depth, work.load_paths(), lambda _, path: aio.aio_load(path)))


def loop(paths: Sequence[str]) -> None:
    """One after the other; one read, because it knows how much there is."""
    open_, read, close = os.open, os.read, os.close
    flags = os.O_RDONLY | os.O_CLOEXEC
    for path in paths:
        fd = open_(path, flags)
        read(fd, LOAD_BYTES)
        close(fd)


@QUESTION.contender(BLOCKING, Kind.BASELINE)
def blocking(work: Work) -> Sample:
    """On one core."""
    return timed(loop, work.load_paths())


def load(path: str) -> bytes:
    """Load a file as a program of Python does."""
    with open(path, "rb", buffering=0) as file:
        return file.read()


@QUESTION.contender("open().read() in a loop", Kind.BASELINE)
def blocking_files(work: Work) -> Sample:
    """One after the other, with an object for each file."""

    def run(paths: Sequence[str]) -> None:
        for path in paths:
            load(path)

    return timed(run, work.load_paths())


def job(work: Work) -> Job:
    """Give a whole load as what threads are to call."""
    return Job(load, work.load_paths())


add_shares(QUESTION, lambda _: loop, Work.load_paths)
add_pool(QUESTION, job, THREADS_SHARE)
add_asyncio_threads(QUESTION, job, THREADS_SHARE)


@QUESTION.contender("aiofiles", Kind.PEER, share=THREADS_SHARE)
def aiofiles_load(work: Work) -> Sample:
    """Open, read and close, each awaited."""
    aiofiles = need("aiofiles")

    async def one(_: int, path: str) -> None:
        async with aiofiles.open(path, "rb", buffering=0) as file:
            check(len(await file.read()), LOAD_BYTES)

    return asyncio.run(in_tasks(work.depth, work.load_paths(), one))


@QUESTION.contender("aiofile", Kind.PEER, share=THREADS_SHARE)
def aiofile_load(work: Work) -> Sample:
    """Open, read and close, each awaited. caio opens no files."""
    aiofile = need("aiofile")

    async def one(_: int, path: str) -> None:
        async with aiofile.AIOFile(path, "rb") as file:
            check(len(await file.read_bytes()), LOAD_BYTES)

    return asyncio.run(in_tasks(work.depth, work.load_paths(), one))


def add_slurp(length: int, note: str = "") -> str:
    """Register aio_slurp. Gives the name of the one with two threads."""
    return add_perl(
        QUESTION, "load.pl", lambda work: [work.depth, length], Work.load_paths, note=note
    )[2]


SLURPS = [add_slurp(0), add_slurp(LOAD_BYTES, ", length known")]
QUESTION.aim(OURS, at_least(1.0), "aio_slurp with 2 threads", SLURPS)
