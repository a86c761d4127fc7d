"""
How close do batches come to two threads of a C program that make plain system calls?

One call for all of them, on two cores, with everything in the page cache: attributes of 100,000
files, reads of 4 KiB, and 20,000 files of 4 KiB. Arrays make no object for an item, lists one. Two
threads of Python keep the results, too; they know how long the files are.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from benchmarks.baselines import SHARES, Loop, add_shares
from benchmarks.data import LOAD_BYTES
from benchmarks.harness import Kind, Question, Sizes, Work, at_least, check, need
from benchmarks.measure import Sample, timed
from benchmarks.peers import BY_PLAIN_CALLS, plain_calls
from benchmarks.reads import aligned

if TYPE_CHECKING:
    from collections.abc import Sequence

TARGET = 0.75
STAT = Question(
    "batches_stat",
    __doc__,
    unit="ops/s",
    reference=BY_PLAIN_CALLS,
    full=Sizes(count=100_000),
    quick=Sizes(count=1_000),
    needs=frozenset({"tree"}),
)
READ = replace(
    STAT,
    name="batches_read",
    text="How close is a batch of random reads of 4 KiB?",
    full=Sizes(count=50_000, size=4096),
    quick=Sizes(count=1_000, size=4096),
    needs=frozenset({"file"}),
    contenders=[],
    aims=[],
)
LOAD = replace(
    STAT,
    name="batches_load",
    text="How close is a batch of whole files of 4 KiB?",
    full=Sizes(count=20_000),
    quick=Sizes(count=200),
    needs=frozenset({"loads"}),
    contenders=[],
    aims=[],
)
QUESTIONS = [STAT, READ, LOAD]


def stat(work: Work, *, array: bool) -> Sample:
    """Look at all files."""
    aio = need("procaio")

    def run(paths: Sequence[str]) -> None:
        check(len(aio.aio_stat_many(paths, array=array).wait()), len(paths))

    return timed(run, work.paths())


@STAT.contender("procaio, an array", target=at_least(TARGET))
def stat_array(work: Work) -> Sample:
    """Without an object for a file."""
    need("numpy")
    return stat(work, array=True)


@STAT.contender("procaio, a list")
def stat_list(work: Work) -> Sample:
    """Make an os.stat_result for each."""
    return stat(work, array=False)


@STAT.contender(BY_PLAIN_CALLS, Kind.BASELINE)
def stat_c(work: Work) -> Sample:
    """Make calls of stat(2)."""
    return plain_calls("stat", work.paths())


def stat_loop(paths: Sequence[str]) -> object:
    """Make an os.stat_result for each."""
    stat = os.stat
    return [stat(path) for path in paths]


add_shares(STAT, lambda _: stat_loop, Work.paths)


@READ.contender("procaio, into a Buffer", target=at_least(TARGET))
def read_buffer(work: Work) -> Sample:
    """Numbers in arrays, and the bytes where they are wanted."""
    aio, numpy = need("procaio"), need("numpy")
    fd = work.open()
    out = aio.Buffer(work.count * work.size)
    memoryview(out)[:] = bytes(len(out))

    def run(offsets: Any) -> None:
        result = aio.aio_read_many(fd, offsets, work.size, out, array=True).wait()
        check(int(result["size"].sum()), len(offsets) * work.size)

    return timed(run, numpy.array(work.offsets()))


@READ.contender("procaio, a list of bytes")
def read_list(work: Work) -> Sample:
    """Make an object for each block."""
    aio = need("procaio")
    fd = work.open()

    def run(offsets: Sequence[int]) -> None:
        check(len(aio.aio_read_many(fd, offsets, work.size).wait()), len(offsets))

    return timed(run, work.offsets())


@READ.contender(BY_PLAIN_CALLS, Kind.BASELINE)
def read_c(work: Work) -> Sample:
    """Make calls of pread(2)."""
    return plain_calls("read", work.offsets(), work.data.file, work.size)


def preadv_loop(work: Work) -> Loop:
    """Give a loop of os.preadv, each into its part of one memory."""
    fd, size = work.open(), work.size
    memory = memoryview(aligned((work.count // SHARES + 1) * size))

    def run(offsets: Sequence[int]) -> None:
        preadv = os.preadv
        place = 0
        for offset in offsets:
            preadv(fd, [memory[place : place + size]], offset)
            place += size

    return run


add_shares(READ, preadv_loop, Work.offsets)


def load(work: Work, *, packed: bool) -> Sample:
    """Load all files."""
    aio = need("procaio")

    def run(paths: Sequence[str]) -> None:
        result = aio.aio_load_many(paths, packed=packed).wait()
        check(len(result[1] if packed else result), len(paths))

    return timed(run, work.load_paths())


@LOAD.contender("procaio, a list of bytes", target=at_least(TARGET))
def load_list(work: Work) -> Sample:
    """Make an object for each file."""
    return load(work, packed=False)


@LOAD.contender("procaio, one Buffer")
def load_packed(work: Work) -> Sample:
    """All in one memory, and an array that says where."""
    need("numpy")
    return load(work, packed=True)


@LOAD.contender(BY_PLAIN_CALLS, Kind.BASELINE)
def load_c(work: Work) -> Sample:
    """Open, fstat, read into memory of its own, close."""
    return plain_calls("load", work.load_paths())


def load_loop(paths: Sequence[str]) -> object:
    """Make an object for each file."""
    open_, read, close = os.open, os.read, os.close
    flags = os.O_RDONLY | os.O_CLOEXEC
    loaded = []
    for path in paths:
        fd = open_(path, flags)
        loaded.append(read(fd, LOAD_BYTES))
        close(fd)
    return loaded


add_shares(LOAD, lambda _: load_loop, Work.load_paths)
