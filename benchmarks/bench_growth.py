"""
How fast are no-ops when 1,000, 10,000 and 100,000 are outstanding?

What a request costs must not depend on how many there are, nor on how many files they are about,
nor on how much else the program holds. The last two are asked as what is left of a contender's
speed: it does the same work with little and with much, in one turn. The kernel, too, is slower with
many files, which the blocking loops show; what procaio loses is held against what they lose.
"""

from __future__ import annotations

import os
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

from benchmarks import bench_noop, bench_read_4k, bench_stat, peers, reads
from benchmarks.bench_worker import Heap
from benchmarks.data import KIB
from benchmarks.harness import Kind, Question, Sizes, Work, at_least, check, need
from benchmarks.measure import MissingError, Sample, timed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

KEPT = at_least(0.8)
PARTS = {"1,000": 1200, "10,000": 120, "100,000": 12}  # of 1,200,000 operations
FEW_FILES = 100  # one in so many
OBJECTS, HEAP = 5, 11 * KIB  # for each of 200,000 operations: a million, and a bit more than 2 GiB
FILES = 20  # one for so many operations
TURNS = 2
PERL_THREADS = 2

NOOP = Question(
    "growth_noop",
    __doc__,
    unit="ops/s",
    reference="procaio, 1,000 outstanding",
    full=Sizes(count=1_200_000, depth=0),
    quick=Sizes(count=12_000, depth=0),
)
READ = replace(
    NOOP,
    name="growth_read",
    text="How fast are random reads of 4 KiB when so many are outstanding?",
    full=Sizes(count=1_200_000, depth=0, size=4 * KIB),
    quick=Sizes(count=12_000, depth=0, size=4 * KIB),
    needs=frozenset({"file"}),
    contenders=[],
    aims=[],
)
STAT = Question(
    "growth_files",
    "How much of their speed is left with 100,000 files instead of 1,000?",
    unit="is left",
    reference="os.stat in a loop",
    full=Sizes(count=100_000, depth=64),
    quick=Sizes(count=1_000, depth=64),
    needs=frozenset({"tree"}),
)
PROGRAM = Question(
    "growth_program",
    "How much of the speed of reads is left in a program that holds a lot?",
    unit="is left",
    reference="os.pread in a loop, a million objects and 2 GiB",
    full=Sizes(count=200_000, depth=64, size=4 * KIB),
    quick=Sizes(count=1_000, depth=64, size=4 * KIB),
    needs=frozenset({"file"}),
)
QUESTIONS = [NOOP, READ, STAT, PROGRAM]


# -- outstanding requests --------------------------------------------------------------------------


def outstanding(work: Work, part: int) -> Work:
    """Have a part of the operations outstanding."""
    return replace(work, depth=work.count // part)


def noops(part: int, work: Work) -> Sample:
    """Every callback makes the next request."""
    return bench_noop.procaio_callbacks(outstanding(work, part))


def perl_noops(part: int, work: Work) -> Sample:
    """Do the same in Perl."""
    lines = "\n".join(map(str, range(work.count)))
    return peers.perl("noop.pl", lines, PERL_THREADS, outstanding(work, part).depth)


def random_reads(part: int, work: Work) -> Sample:
    """Make an object for each block: a Buffer for all of them would be what grows."""
    return reads.callbacks_with_bytes(outstanding(work, part), work.offsets())


def add_outstanding(
    question: Question, name: str, kind: Kind, run: Callable[[int, Work], Sample]
) -> None:
    """Register it with each number of them."""
    for number, part in PARTS.items():
        full_name = f"{name}, {number} outstanding"
        ours = kind is Kind.PROCAIO and full_name != question.reference
        register = question.contender(full_name, kind, target=KEPT if ours else None)
        register(partial(run, part))


add_outstanding(NOOP, "procaio", Kind.PROCAIO, noops)
add_outstanding(NOOP, peers.perl_name(PERL_THREADS), Kind.PEER, perl_noops)
add_outstanding(READ, "procaio", Kind.PROCAIO, random_reads)


# -- files -----------------------------------------------------------------------------------------


def with_more_files(work: Work, measure: Callable[[Work, Sequence[str]], Sample]) -> Sample:
    """Measure few paths again and again, and as many different ones, in turns."""
    many = work.paths()
    few = many[: len(many) // FEW_FILES] * FEW_FILES
    turns = [(measure(work, few), measure(work, many)) for _ in range(TURNS)]
    left = sum(one.seconds for one, _ in turns) / sum(other.seconds for _, other in turns)
    return replace(turns[0][1], value=left)


def opens(work: Work, paths: Sequence[str]) -> Sample:
    """Callbacks of aio_open and aio_close."""
    aio = need("procaio")
    flags = os.O_RDONLY | os.O_CLOEXEC

    def run(paths: Sequence[str]) -> None:
        aio_open, aio_close = aio.aio_open, aio.aio_close
        todo = iter(paths)
        failed = 0

        def opened(file: Any) -> None:
            nonlocal failed
            if file is None:
                failed += 1
            else:
                aio_close(file, closed)

        def closed(_: int) -> None:
            for path in todo:
                aio_open(path, flags, 0, opened)
                return

        for path in islice(todo, work.depth):
            aio_open(path, flags, 0, opened)
        while aio.nreqs():
            aio.poll()
        check((failed, len(list(todo))), (0, 0))

    return timed(run, paths)


def blocking_opens(_: Work, paths: Sequence[str]) -> Sample:
    """One after the other."""
    flags = os.O_RDONLY | os.O_CLOEXEC

    def run(paths: Sequence[str]) -> None:
        for path in paths:
            os.close(os.open(path, flags))

    return timed(run, paths)


BLOCKING_OPENS = "os.open, os.close in a loop"
OPENS = "procaio, aio_open, aio_close"
for name, kind, measure, target in (
    ("procaio, aio_stat", Kind.PROCAIO, bench_stat.callbacks, KEPT),
    (OPENS, Kind.PROCAIO, opens, None),
    (STAT.reference, Kind.BASELINE, bench_stat.in_a_loop, None),
    (BLOCKING_OPENS, Kind.BASELINE, blocking_opens, None),
):
    STAT.contender(name, kind, target=target)(partial(with_more_files, measure=measure))
STAT.aim(OPENS, KEPT, BLOCKING_OPENS)


# -- the program -----------------------------------------------------------------------------------


def objects_and_memory(work: Work) -> object:
    """Give what Python's collector has to look at, and pages that are in use."""
    return [[number] for number in range(OBJECTS * work.count)], Heap(HEAP * work.count)


def open_files(work: Work) -> object:
    """Open as many files. The end of the process closes them."""
    number = work.count // FILES
    if peers.allow_many_files() < number + 100:
        message = f"the right to open {number:,} files (ulimit -Hn)"
        raise MissingError(message)
    return [work.open() for _ in range(number)]


def with_more_in_it(
    work: Work, measure: Callable[[Work], Sample], grow: Callable[[Work], object]
) -> Sample:
    """Measure before and after the program has grown."""
    before = measure(work)
    held = grow(work)
    after = measure(work)
    del held
    return replace(after, value=before.seconds / after.seconds)


WAYS = {
    "procaio": (Kind.PROCAIO, bench_read_4k.procaio_buffer),
    "procaio, by workers alone": (Kind.PROCAIO, bench_read_4k.procaio_buffer_by_workers),
    "os.pread in a loop": (Kind.BASELINE, bench_read_4k.blocking),
}
GROWTHS = {"a million objects and 2 GiB": objects_and_memory, "10,000 open files": open_files}
for growth, grow in GROWTHS.items():
    for name, (kind, way) in WAYS.items():
        full_name = f"{name}, {growth}"
        PROGRAM.contender(full_name, kind)(partial(with_more_in_it, measure=way, grow=grow))
        if kind is Kind.PROCAIO:
            PROGRAM.aim(full_name, KEPT, f"os.pread in a loop, {growth}")
