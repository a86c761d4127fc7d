"""
How much there is in what a plan is about: for the time that is left, and for --dry-run.

Both count with scans that stop when they are told to. Not here: doing it (`_jobs`).
"""

from __future__ import annotations

import select
import stat
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple, final

from procaio._scan import Failure, Scan

if TYPE_CHECKING:
    from collections.abc import Iterable

    from procaio._cli_signals import Signals
    from procaio._plans import Plan, Task
    from procaio._pool import Pool

__all__ = ["Amount", "Counter", "Preview"]

COUNTERS = 2
"""Workers that count beside those that copy."""


class Amount(NamedTuple):
    """So much is, was or will be done."""

    files: int = 0
    dirs: int = 0
    bytes: int = 0

    @staticmethod
    def sum(amounts: Iterable[Amount]) -> Amount:
        """All of them together."""
        return Amount(*map(sum, zip(*amounts, (0, 0, 0), strict=True)))


def _amount_of(task: Task) -> Amount:
    """One that is no tree: what a copy would write."""
    st = task.stat
    return Amount(1, 0, st.st_size if stat.S_ISREG(st.st_mode) else 0)


def _amount_in(scan: Scan) -> Amount:
    return Amount(scan.files, scan.dirs, scan.data)


@final
class Counter:
    """Counts what is in some tasks while something else is being done."""

    def __init__(self, tasks: list[Task], workers: int) -> None:
        """Files are known already."""
        self._files = Amount.sum(_amount_of(task) for task in tasks if not task.is_tree)
        self._trees = [task.source for task in tasks if task.is_tree]
        self._workers = min(workers, COUNTERS)
        self._scan: Scan | None = None
        self.pool: Pool | None = None
        """As long as it counts: go_on() takes its results."""
        self.total = None if self._trees else self._files
        """All that there is, when it has been counted."""

    @property
    def entries(self) -> int:
        """What has been counted so far."""
        scan = self._scan
        return self._files.files + (scan.files + scan.dirs if scan else 0)

    def begin(self) -> None:
        """Count, unless a tree is gone again."""
        with suppress(OSError):
            if self._trees:
                self._scan = Scan(self._trees, largest=0, workers=self._workers)
                self.pool = self._scan.begin()
                self.go_on()

    def go_on(self) -> None:
        """Take the results that are there."""
        if self._scan is not None and not self._scan.go_on():
            self.total = Amount.sum([self._files, _amount_in(self._scan)])
            self.end()

    def end(self) -> None:
        """Count no more."""
        if self._scan is not None:
            self._scan.end()
        self._scan = self.pool = None


@final
class Preview:
    """What a plan would do: run() counts it, task by task, and touches nothing."""

    def __init__(self, plan: Plan, *, workers: int) -> None:
        """Nothing is counted yet."""
        self.failures = list(plan.failures)
        self.failed = len(plan.failures)
        self.amounts: list[tuple[Task, Amount]] = []
        """Of the tasks that have been counted."""
        self.complete = False
        self._tasks = plan.tasks
        self._workers = workers
        self._scan: Scan | None = None

    @property
    def current(self) -> bytes:
        """The directory that was taken up last."""
        return self._scan.current if self._scan else b""

    @property
    def total(self) -> Amount:
        """Of all that has been counted."""
        scan = self._scan
        unfinished = [_amount_in(scan)] if scan and not scan.complete else []
        return Amount.sum([amount for _, amount in self.amounts] + unfinished)

    def run(self, signals: Signals) -> None:
        """Count. After a signal `complete` stays False."""
        for task in self._tasks:
            if signals.number:
                return
            if task.is_tree:
                self._count(task, signals)
            else:
                self.amounts.append((task, _amount_of(task)))
        self.complete = not signals.number

    def _count(self, task: Task, signals: Signals) -> None:
        try:
            self._scan = scan = Scan([task.source], largest=0, workers=self._workers)
        except OSError as error:
            self.failed += 1
            self.failures.append(Failure(task.source, error.errno or 0))
            return
        pool = scan.begin()
        try:
            while scan.go_on() and not signals.number:
                select.select([pool.poll_fileno(), signals.fileno()], [], [])
        finally:
            scan.end()
        self.failed += scan.failed
        self.failures += scan.failures
        if scan.complete:
            self.amounts.append((task, _amount_in(scan)))
