"""
What does a no-op cost, with a Python callback for each?

The work is nothing, so this is the price of the way there and back. The C program with the same
rings, and no Python, is the limit, whatever number of workers suits it best. Of the peers
the fastest counts, and Perl's IO::AIO is there with several numbers of threads.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

from benchmarks import peers
from benchmarks.baselines import THREADS_SHARE, Job, add_asyncio_threads, add_pool
from benchmarks.harness import Kind, Question, Sizes, Work, at_least, need
from benchmarks.measure import Sample, timed
from benchmarks.reads import add_reader, awaiting, in_tasks

if TYPE_CHECKING:
    from collections.abc import Sequence

FEW = Question(
    "noop",
    __doc__,
    unit="ops/s",
    reference="Perl IO::AIO, 2 threads",
    full=Sizes(count=300_000, depth=64),
    quick=Sizes(count=2_000, depth=64),
    needs=frozenset({"file"}),
)
MANY = replace(
    FEW,
    name="noop_1000",
    text="What does a no-op cost when 1,000 are outstanding?",
    full=Sizes(count=300_000, depth=1000),
    quick=Sizes(count=2_000, depth=1000),
    contenders=[],
    aims=[],
)
QUESTIONS = [FEW, MANY]
OURS = "procaio, callbacks"
AIOFILES = "aiofiles (wrapped function)"


def procaio_callbacks(work: Work) -> Sample:
    """Every callback makes the next request."""
    aio = need("procaio")

    def run(items: Sequence[int]) -> None:
        aio_nop = aio.aio_nop
        left = len(items)

        def done() -> None:
            nonlocal left
            if left:
                left -= 1
                aio_nop(done)

        for _ in range(work.depth):
            done()
        while aio.nreqs():
            aio.poll()

    return timed(run, range(work.count))


def procaio_await(work: Work) -> Sample:
    """Tasks that await one after the other."""
    aio = need("procaio")
    return asyncio.run(in_tasks(work.depth, range(work.count), lambda *_: aio.aio_nop()))


def nothing(_: object) -> None:
    """Do nothing, for those who need something to call."""


def blocking(work: Work) -> Sample:
    """Nobody is asked, nobody calls back."""

    def run(items: Sequence[int]) -> None:
        for item in items:
            nothing(item)

    return timed(run, range(work.count))


def job(work: Work) -> Job:
    """Give the function that does nothing as what threads are to call."""
    return Job(nothing, range(work.count))


def aiofiles_wrap(work: Work) -> Sample:
    """Await what aiofiles makes of a function that blocks."""
    wrapped = need("aiofiles.os").wrap(nothing)
    return asyncio.run(in_tasks(work.depth, range(work.count), lambda _, item: wrapped(item)))


# Those without a no-op take the same way for reads of 0 bytes.
zeros = awaiting(lambda work: [0] * work.count)

for question in QUESTIONS:
    question.contender(OURS)(procaio_callbacks)
    question.contender("procaio, await in asyncio")(procaio_await)
    question.contender("function calls in a loop", Kind.BASELINE)(blocking)
    pools = add_pool(question, job, THREADS_SHARE)
    threads = add_asyncio_threads(question, job, THREADS_SHARE)
    question.contender(AIOFILES, Kind.PEER, share=THREADS_SHARE)(aiofiles_wrap)
    readers = [
        add_reader(question, reader, zeros, share=THREADS_SHARE, note=" (reads of 0 bytes)")
        for reader in (peers.AIOFILE, *peers.CAIO)
    ]
    perl = peers.add_perl(
        question, "noop.pl", lambda work: [work.depth], lambda work: range(work.count)
    )
    others = {*pools, *threads, AIOFILES, *readers, *perl.values()}
    question.aim(OURS, at_least(1.0), "the fastest peer", others)
    rings = peers.add_ring_limit(question, lambda _: [])
    question.aim(OURS, at_least(0.6), "the rings in C", rings)
