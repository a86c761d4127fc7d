"""
Trees: what is walked, copied and removed, and the ways of Python, Perl and C to do it.

A `Way` does the same to a small tree, to warm up, and to the one that is measured. It is used by
the question about cached data and by the one about a slow file system: what differs is the place.

Programs written in C are started for the tree and have ended when it is done: a millisecond that
is part of their time, as it is for who calls them. They have nothing to warm up.

What is consumed or made in a turn is made or removed outside of the timed part, and on the slow
file system in the directory that it shows, without delay.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from collections.abc import Callable
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from benchmarks.data import Shape
from benchmarks.harness import Kind, Question, Sizes, Work, at_least, check, need
from benchmarks.measure import Meter, MissingError, Sample
from benchmarks.peers import PERL_THREADS, perl, perl_name
from benchmarks.slowfs import calls

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator, Sequence
    from pathlib import Path

    from benchmarks.harness import Target

WIDE = Shape(500, 100)
WIDE_QUICK = Shape(10, 10)
WARM_UP = Shape(4, 10)


@dataclass(frozen=True)
class Place:
    """
    Where trees are.

    `made_in` and `seen_in` are one directory, or the second is the slow view of the first.
    """

    made_in: Path
    seen_in: Path
    shape: Shape

    @property
    def slow(self) -> bool:
        """Whether calls are delayed, and counted."""
        return self.made_in != self.seen_in

    @contextmanager
    def scratch(self) -> Iterator[str]:
        """Give the name of a directory for what lives no longer than a turn."""
        name = "scratch"
        directory = self.made_in / name
        shutil.rmtree(directory, ignore_errors=True)  # of a turn that was killed
        directory.mkdir()
        try:
            yield name
        finally:
            shutil.rmtree(directory)


def wide(work: Work) -> Place:
    """Give the place of cached data."""
    assert work.shape is not None
    return Place(work.data.root, work.data.root, work.shape)


def slow(work: Work) -> Place:
    """Give the place where each call is delayed."""
    assert work.shape is not None
    return Place(work.data.slow_source, work.data.slow_mount, work.shape)


@dataclass(frozen=True)
class Task:
    """The arguments for the warm-up, those for what is measured, and a look at the outcome."""

    warm_up: Sequence[str]
    measured: Sequence[str]
    verify: Callable[[Sample], None]


Stage = Callable[[Place], AbstractContextManager[Task]]


@contextmanager
def walking(place: Place) -> Iterator[Task]:
    """Look at a tree that stays."""
    name = place.shape.name
    warm_up = place.made_in / name / "000"
    # Those that print no number are not asked for one.
    verify = partial(_check_count, place.shape.entries)
    yield Task([str(warm_up)], [str(place.seen_in / name)], verify)


def _check_count(entries: int, sample: Sample) -> None:
    if sample.ops:
        check(sample.ops, entries)


@contextmanager
def removing(place: Place) -> Iterator[Task]:
    """Remove a tree that is made for it, and is on the disk by then."""
    with place.scratch() as scratch:
        warm_up = place.made_in / scratch / "warm-up"
        doomed = place.made_in / scratch / "doomed"
        WARM_UP.make(warm_up)
        place.shape.make(doomed)
        os.sync()

        def verify(_: Sample) -> None:
            check(doomed.exists(), False)

        yield Task([str(warm_up)], [str(place.seen_in / scratch / "doomed")], verify)


@contextmanager
def copying(place: Place) -> Iterator[Task]:
    """Copy a tree that stays to one that is not there."""
    source = place.seen_in / place.shape.name
    with place.scratch() as scratch:
        warm_up = place.made_in / scratch / "warm-up"
        made = place.made_in / scratch / "made"
        WARM_UP.make(warm_up)
        os.sync()

        def verify(_: Sample) -> None:
            found = [(len(dirs), len(files)) for _, dirs, files in os.walk(made)]
            check(sum(map(sum, found)), place.shape.entries)

        yield Task(
            [str(warm_up), str(place.made_in / scratch / "warm-up copied")],
            [str(source), str(place.seen_in / scratch / "made")],
            verify,
        )


@dataclass(frozen=True)
class Way:
    """One way to do it. `run` gets both lists of arguments; 0 operations: it did not count."""

    name: str
    kind: Kind
    run: Callable[[Task], Sample]


def add_way(question: Question, way: Way, stage: Stage, place_of: Callable[[Work], Place]) -> None:
    """Register it as a contender."""

    def run(work: Work) -> Sample:
        place = place_of(work)
        with stage(place) as task:
            before = calls(place.seen_in) if place.slow else 0
            sample = way.run(task)
            extra = {}
            if place.slow:
                extra["calls"] = (calls(place.seen_in) - before - 1) / place.shape.entries
            task.verify(sample)
        return replace(sample, ops=place.shape.entries, extra=extra)

    question.contender(way.name, way.kind)(run)


def by_function(name: str, kind: Kind, do: Callable[..., int | None]) -> Way:
    """Call a function of Python, that may give the number of entries it met."""

    def run(task: Task) -> Sample:
        do(*task.warm_up)
        with Meter() as meter:
            count = do(*task.measured)
        return meter.sample(count or 0)

    return Way(name, kind, run)


def by_coroutine(
    name: str,
    kind: Kind,
    do: Callable[..., Coroutine[Any, Any, int | None]],
) -> Way:
    """Await a function of Python. The event loop is there before."""

    async def measured(task: Task) -> Sample:
        await do(*task.warm_up)
        with Meter() as meter:
            count = await do(*task.measured)
        return meter.sample(count or 0)

    return Way(name, kind, lambda task: asyncio.run(measured(task)))


def by_program(name: str, *words: str, counts: bool = False) -> Way:
    """Run a program with the paths as last arguments, or where there is {}."""

    def run(task: Task) -> Sample:
        program = shutil.which(words[0])
        if program is None:
            raise MissingError(words[0])
        command = [program, *words[1:]]
        at = command.index("{}") if "{}" in command else len(command)
        command[at : at + 1] = task.measured
        with Meter() as meter:
            done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
        # It names the top too.
        return meter.sample(done.stdout.count(b"\n") - 1 if counts else 0)

    return Way(name, Kind.TOOL, run)


def by_perl(script: str, threads: Sequence[int] = PERL_THREADS) -> list[Way]:
    """Run a script of perl/ with each number of threads, the paths as further arguments."""

    def run(task: Task, number: int) -> Sample:
        return perl(script, "", number, *task.warm_up, *task.measured)

    return [Way(perl_name(number), Kind.PEER, partial(run, number=number)) for number in threads]


def procaio_function(name: str) -> Callable[..., Any]:
    """Give a function of procaio, which may be older than the benchmark."""
    function: Callable[..., Any] | None = getattr(need("procaio"), name, None)
    if function is None:
        message = f"procaio.{name}"
        raise MissingError(message)
    return function


def names_of(ways: Sequence[Way], *kinds: Kind) -> frozenset[str]:
    """Give the names of those of some kinds."""
    return frozenset(way.name for way in ways if way.kind in kinds)


def about_wide_trees(
    name: str,
    text: str,
    reference: str,
    ways: Sequence[Way],
    stage: Stage,
    *,
    unit: str = "entries/s",
    needs: frozenset[str] = frozenset({"shaped"}),
    target: Target | None = None,
) -> Question:
    """Make a question about a wide tree in the cache, which is done in these ways."""
    question = Question(
        name,
        text,
        unit=unit,
        reference=reference,
        full=Sizes.of_tree(WIDE),
        quick=Sizes.of_tree(WIDE_QUICK),
        needs=needs,
        noun="entries",
    )
    for way in ways:
        add_way(question, way, stage, wide)
    ours = names_of(ways, Kind.PROCAIO)
    peers = names_of(ways, Kind.BASELINE, Kind.PEER)
    if target:
        question.aim(ours, target, reference)
    question.aim(ours, at_least(1.0), "the fastest peer", peers)
    question.aim(ours, at_least(1 / 1.3), "the fastest in C", names_of(ways, Kind.TOOL))
    return question
