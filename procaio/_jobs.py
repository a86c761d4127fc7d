"""
The engine of `procaio copy`, `remove` and `move`: does what a plan says, and adds up what was done.

What is done for a task, or for some of them together, is a generator: it yields what is to be
asked of the workers, and gets the request back when that has ended. A bounded number of them is
at work at a time.

A signal cancels all of them, and the engine waits until the workers have left what they were at: a
file that is being copied then is removed. It does not wait any more after a second one.

Not here: what may be done (`_plans`), printing and progress (`_cli_trees`), which reads the
attributes of a `Job` while it runs.
"""

from __future__ import annotations

import os
import select
import time
from abc import ABC, abstractmethod
from collections import deque
from contextlib import suppress
from enum import Enum, auto
from errno import EACCES, EDQUOT, EFBIG, ENOENT, ENOSPC, ENOTDIR, EPERM, EROFS, EXDEV
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias, final

from procaio._copytree import aio_copytree, copy_entries
from procaio._core import aio_copy, aio_move, aio_rename, aio_unlink
from procaio._counts import Amount, Counter
from procaio._pool import Pool
from procaio._scan import FAILURES_KEPT, Failure
from procaio._trees import aio_rmtree

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable

    from procaio._cli_signals import Signals
    from procaio._core import Request
    from procaio._plans import Plan, Task
    from procaio._trees import TreeProgress

__all__ = ["Copying", "Job", "Moving", "Removal"]

TASKS_AT_A_TIME: Final = 32
OF_THE_TARGET: Final = frozenset({ENOSPC, EDQUOT, EROFS, EFBIG})
"""Errors of a copy that are about what is written."""
OF_EITHER: Final = frozenset({EACCES, EPERM, ENOENT, ENOTDIR})
"""Errors of a copy that do not tell which of the two paths they are about."""


@final
class Counts(Enum):
    """What a request adds to what the command has done."""

    ENTRIES = auto()
    PATH = auto()
    """One, with all that is in it: it is renamed."""
    NOTHING = auto()
    """It removes what was copied."""


class Step(NamedTuple):
    """What is asked of the workers."""

    source: bytes
    target: bytes
    ask: Callable[..., Request[Any]]
    counts: Counts = Counts.ENTRIES


Steps: TypeAlias = "Generator[Step, Request[Any], None]"


class Job(ABC):
    """
    A plan being carried out: run() does it, the attributes tell how far it is.

    They are true at any time: another thread may show them while run() is at work, and after an
    interrupted run() they tell what was done. With `totals`, `total` tells how much there is to do
    as soon as that has been counted.
    """

    def __init__(self, plan: Plan, *, workers: int, totals: bool = False) -> None:
        """Nothing is done yet."""
        self.failed = 0
        self.failures: list[Failure] = []
        """The first ones of `failed`."""
        for failure in plan.failures:
            self._fail(failure.path, failure.errno)
        self.renamed = 0
        """Paths, with all that is in them, that were moved without being copied."""
        self.kept: list[bytes] = []
        """Sources of a move that stay, since their copies are not complete."""
        self.left: list[bytes] = []
        """Sources of a move whose copies are complete, which are not gone, or only in part."""
        self.complete = False
        self.stopping = False
        """It was interrupted, and waits for the workers."""

        self._works = deque(self._works_for(plan.tasks))
        self._limit = 1 if plan.in_order else TASKS_AT_A_TIME
        self._workers = workers
        self._pool: Pool
        self._done = Amount()
        self._current = b""
        self._active: dict[Request[Any], Step] = {}
        self._began = self._ended = 0.0
        self._counter = Counter(self._counted(plan.tasks), workers) if totals else None

    def _counted(self, tasks: list[Task]) -> list[Task]:
        """Those of which it is told how much is left."""
        return tasks

    # -- how far it is ----------------------------------------------------------------------------

    @property
    def done(self) -> Amount:
        """What has been done."""
        active = [
            amount_of(one)
            for one, step in list(self._active.items())
            if step.counts is Counts.ENTRIES
        ]
        return Amount.sum([self._done, *active])

    @property
    def total(self) -> Amount | None:
        """What there is to do, if that is known."""
        return self._counter.total if self._counter else None

    @property
    def counted(self) -> int:
        """Entries that have been counted so far."""
        return self._counter.entries if self._counter else 0

    @property
    def current(self) -> bytes:
        """What was taken up last."""
        for request in reversed(list(self._active)):
            progress = progress_of(request)
            if progress:
                return progress.current
        return self._current

    @property
    def seconds(self) -> float:
        """How long it took, or has been taking; 0 while nothing has been begun."""
        return (self._ended or time.monotonic()) - self._began if self._began else 0.0

    # -- doing it ---------------------------------------------------------------------------------

    def run(self, signals: Signals) -> None:
        """Do what the plan says. Once only. After a signal `complete` stays False."""
        self._pool = Pool(self._workers)
        try:
            self._count(signals)
            self._began = time.monotonic()
            while self._goes_on() and not signals.again:
                if signals.number and not self.stopping:
                    self._stop(signals)
                while self._works and len(self._active) < self._limit:
                    steps = self._works.popleft()
                    self._ask(steps, next(steps))
                self._wait(signals)
            self.complete = not (self.stopping or self._works or self._active)
        finally:
            self._ended = time.monotonic()
            if self._counter:
                self._counter.end()
            self._pool._close(0)  # noqa: SLF001 - ours
            for request, step in self._active.items():
                self._add_up(step, request)
            self._active.clear()

    def _goes_on(self) -> object:
        # The callback of a request that was cancelled is not called.
        return self._pool.nreqs() if self.stopping else self._works or self._active

    def _count(self, signals: Signals) -> None:  # noqa: ARG002 - for those that count first
        """Begin to count what there is to do."""
        if self._counter:
            self._counter.begin()

    def _wait(self, signals: Signals) -> None:
        """Until something has ended, or a signal comes; then do what follows from that."""
        counting = self._counter.pool if self._counter else None
        pools = [self._pool, counting] if counting else [self._pool]
        select.select([signals.fileno(), *(pool.poll_fileno() for pool in pools)], [], [])
        self._pool.poll_cb()
        if self._counter:
            self._counter.go_on()

    def _stop(self, signals: Signals) -> None:
        signals.rest()
        self.stopping = True
        self._works.clear()
        if self._counter:
            self._counter.end()
        for request in list(self._active):
            request.cancel()

    def _works_for(self, tasks: list[Task]) -> Iterable[Steps]:
        return map(self._steps, tasks)

    @abstractmethod
    def _steps(self, task: Task) -> Steps:
        """What is to be asked for one task."""

    def _ask(self, steps: Steps, step: Step) -> None:
        self._current = step.source
        request = step.ask(pool=self._pool)
        request.cb(lambda *_: self._answered(steps, request))
        self._active[request] = step

    def _answered(self, steps: Steps, request: Request[Any]) -> None:
        self._add_up(self._active.pop(request), request)
        with suppress(StopIteration):
            step = steps.send(request)
            if not self.stopping:
                self._ask(steps, step)

    # -- what was done ----------------------------------------------------------------------------

    def _add_up(self, step: Step, request: Request[Any]) -> None:
        """One has ended, or was cancelled."""
        number = request.error.errno or 0 if request.error else 0
        progress = progress_of(request)
        if step.counts is Counts.ENTRIES:
            self._done = Amount.sum([self._done, amount_of(request)])
        elif step.counts is Counts.PATH:
            if number == EXDEV:
                return  # it will be copied
            self.renamed += request.state == "done" and not number
        if progress and progress.failed:
            for path, why in progress.failures:
                self._fail(_blamed(step, path, why), why)
            self.failed += progress.failed - len(progress.failures)
        elif number:
            self._fail(_blamed(step, step.source, number), number)

    def _fail(self, path: bytes, number: int) -> None:
        self.failed += 1
        if len(self.failures) < FAILURES_KEPT:
            self.failures.append(Failure(path, number))


def progress_of(request: Request[Any]) -> TreeProgress | None:
    """What a composite request tells of how far it is."""
    return getattr(request, "progress", None)


def amount_of(request: Request[Any]) -> Amount:
    """What it has done so far; a single file is not counted before it is there."""
    progress = progress_of(request)
    if progress:
        return Amount(progress.files, progress.dirs, progress.bytes)
    if request.error or request.state == "cancelled":
        return Amount()
    return Amount(int(request.state == "done"), 0, request.copied)


def _blamed(step: Step, path: bytes, number: int) -> bytes:
    """The path that an error is about; of a file a request names what was to be copied."""
    is_copy = path.startswith(os.path.join(step.target, b""))
    if not step.target or is_copy or not path.startswith(step.source):
        return path
    if number in OF_THE_TARGET or (number in OF_EITHER and os.access(path, os.R_OK)):
        rest = path[len(step.source) :].lstrip(b"/")
        return os.path.join(step.target, rest) if rest else step.target
    return path


@final
class Removal(Job):
    """`procaio remove`."""

    @property
    def total(self) -> Amount | None:
        """As of what is done, nobody tells the bytes."""
        total = super().total
        return total and total._replace(bytes=0)

    def _count(self, signals: Signals) -> None:
        super()._count(signals)
        while self._counter and self._counter.pool and not signals.number:
            self._wait(signals)  # what is counted while it is being removed would be wrong

    def _steps(self, task: Task) -> Steps:
        remove = aio_rmtree if task.is_tree else aio_unlink
        yield Step(task.source, b"", partial(remove, task.source))


@final
class Copying(Job):
    """`procaio copy`."""

    def _works_for(self, tasks: list[Task]) -> Iterable[Steps]:
        """What is in one directory is copied together: files may be several names of one."""
        together: dict[bytes, list[Task]] = {}
        for task in tasks:
            directory, name = os.path.split(task.source)
            is_link = task.is_tree and os.path.islink(task.source)  # a slash was behind it
            alone = is_link or name in {b"", b"."}
            together.setdefault(task.source if alone else directory + b"/", []).append(task)
        for group in together.values():
            yield self._steps_for_all(group) if len(group) > 1 else self._steps(group[0])

    def _steps_for_all(self, tasks: list[Task]) -> Steps:
        source, target = (os.path.dirname(path) for path in (tasks[0].source, tasks[0].target))
        dirs = [os.path.basename(task.source) for task in tasks if task.is_tree]
        others = [os.path.basename(task.source) for task in tasks if not task.is_tree]
        yield Step(source, target, partial(copy_entries, source, target, dirs, others))

    def _steps(self, task: Task) -> Steps:
        yield _copy(task)


def _copy(task: Task) -> Step:
    paths = task.source, task.target
    if task.is_tree:
        return Step(*paths, partial(aio_copytree, *paths, dirs_exist_ok=task.replaces))
    return Step(*paths, partial(aio_copy, *paths, follow_symlinks=False))


@final
class Moving(Job):
    """`procaio move`."""

    def _counted(self, tasks: list[Task]) -> list[Task]:
        return [task for task in tasks if task.crosses]  # all others are renamed

    def _steps(self, task: Task) -> Steps:
        paths = task.source, task.target
        if task.is_tree:
            moved = yield Step(*paths, partial(aio_rename, *paths), Counts.PATH)
            if moved.error and moved.error.errno == EXDEV:
                yield from self._across(task)
        else:
            counts = Counts.ENTRIES if task.crosses else Counts.PATH
            yield Step(*paths, partial(aio_move, *paths), counts)

    def _across(self, task: Task) -> Steps:
        """A directory is copied, and removed if the copy is complete."""
        self.kept.append(task.source)
        copied = yield _copy(task)
        if copied.error:
            return
        self.kept.remove(task.source)
        self.left.append(task.source)
        remove = partial(aio_rmtree, task.source)
        removed = yield Step(task.source, b"", remove, Counts.NOTHING)
        if not removed.error:
            self.left.remove(task.source)
