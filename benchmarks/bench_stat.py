"""
How fast are the attributes of 100,000 files?

A program that walks a tree it has just walked: every inode is in memory, and what is measured is
the path look-up and the way there and back.
"""

from __future__ import annotations

import asyncio
import os
from itertools import islice
from typing import TYPE_CHECKING

from benchmarks.baselines import THREADS_SHARE, Job, add_asyncio_threads, add_pool, add_shares
from benchmarks.harness import Kind, Question, Sizes, Work, at_least, check, need
from benchmarks.measure import Sample, timed
from benchmarks.peers import add_perl
from benchmarks.reads import in_tasks

if TYPE_CHECKING:
    from collections.abc import Sequence

QUESTION = Question(
    "stat",
    __doc__,
    unit="ops/s",
    reference="os.stat in a loop",
    full=Sizes(count=100_000, depth=64),
    quick=Sizes(count=1_000, depth=64),
    needs=frozenset({"tree"}),
)
QUESTIONS = [QUESTION]
OURS = "procaio, callbacks"


def callbacks(work: Work, paths: Sequence[str]) -> Sample:
    """Every callback makes the next request."""
    aio = need("procaio")

    def run(paths: Sequence[str]) -> None:
        aio_stat = aio.aio_stat
        todo = iter(paths)
        failed = 0

        def done(attributes: os.stat_result | None) -> None:
            nonlocal failed
            if attributes is None:
                failed += 1
            for path in todo:
                aio_stat(path, done)
                return

        for path in islice(todo, work.depth):
            aio_stat(path, done)
        while aio.nreqs():
            aio.poll()
        check(failed, 0)

    return timed(run, paths)


@QUESTION.contender(OURS, target=at_least(1.4))
def procaio_callbacks(work: Work) -> Sample:
    """All files, one after the other."""
    return callbacks(work, work.paths())


@QUESTION.contender("procaio, await in asyncio")
def procaio_await(work: Work) -> Sample:
    """Tasks that await one after the other."""
    aio = need("procaio")
    return asyncio.run(in_tasks(work.depth, work.paths(), lambda _, path: aio.aio_stat(path)))


def loop(paths: Sequence[str]) -> None:
    """One after the other."""
    stat = os.stat
    for path in paths:
        stat(path)


def in_a_loop(_: Work, paths: Sequence[str]) -> Sample:
    """One after the other, on one core."""
    return timed(loop, paths)


@QUESTION.contender("os.stat in a loop", Kind.BASELINE)
def blocking(work: Work) -> Sample:
    """All files, one after the other."""
    return in_a_loop(work, work.paths())


def job(work: Work) -> Job:
    """Give os.stat as what threads are to call."""
    return Job(os.stat, work.paths())


SHARES = add_shares(QUESTION, lambda _: loop, Work.paths)
POOLS = add_pool(QUESTION, job, THREADS_SHARE)
THREADS = add_asyncio_threads(QUESTION, job, THREADS_SHARE)
AIOFILES = "aiofiles"


@QUESTION.contender(AIOFILES, Kind.PEER, share=THREADS_SHARE)
def aiofiles_stat(work: Work) -> Sample:
    """aiofiles.os.stat, awaited. aiofile and caio offer no stat."""
    stat = need("aiofiles.os").stat
    return asyncio.run(in_tasks(work.depth, work.paths(), lambda _, path: stat(path)))


PERL = add_perl(QUESTION, "stat.pl", lambda work: [work.depth], Work.paths)
QUESTION.aim(
    OURS, at_least(1.0), "the fastest peer", {SHARES, *POOLS, *THREADS, AIOFILES, *PERL.values()}
)
