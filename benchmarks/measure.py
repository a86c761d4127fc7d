"""
What is measured inside a contender's process: wall time and the CPU time of all processes.

CPU time is read from the processes' own CPU clocks right before and right after the timed part,
not from the resource usage of the whole run. So start-up, imports and warm-up need no subtracting,
and workers count while they live: getrusage() would show them only after they have been reaped.
The clock of a process covers all its threads, ended ones and io_uring's kernel threads included;
what has been reaped since the start is added from RUSAGE_CHILDREN.

Not here: how samples become figures (`report`), who is run when (`harness`).
"""

from __future__ import annotations

import math
import os
import resource
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

WARM_UP_SHARE = 10  # one operation in ten is done once more beforehand, untimed


class MissingError(Exception):
    """Something that a contender needs is not installed here: named in the table, no failure."""


class WrongResultError(Exception):
    """An operation gave something else than it should: its speed would mean nothing."""


@dataclass(frozen=True)
class Sample:
    """
    One run of one contender.

    `value` is the figure that the question asks for, or None where it follows from `ops` and
    `seconds`. `cpu` is in seconds, over all processes. `extra` holds further columns.
    """

    ops: int
    seconds: float
    cpu: float
    value: float | None = None
    extra: dict[str, float] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Give the sample as what json.dumps takes."""
        return asdict(self)


def _parents() -> dict[int, int]:
    """Give the parent of every process there is."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # ended meanwhile
            # The name in brackets may contain anything; state and parent follow the last bracket.
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
    return parents


def descendants(pid: int) -> list[int]:
    """Give the children of a process, their children, and so on."""
    children: dict[int, list[int]] = {}
    for child, parent in _parents().items():
        children.setdefault(parent, []).append(child)
    found = list(children.get(pid, []))
    for child in found:  # grows while we walk
        found += children.get(child, [])
    return found


def _cpu_of(pid: int) -> float:
    """Give the CPU seconds of a process by its CPU clock (clock_getcpuclockid(3) of Linux)."""
    with suppress(OSError):
        return time.clock_gettime(~pid << 3 | 2)
    return 0.0  # it ended and was reaped after we saw it; RUSAGE_CHILDREN has it


def cpu_of_tree(pid: int) -> float:
    """Give the CPU seconds of a process and of all below it that live."""
    return sum(map(_cpu_of, [pid, *descendants(pid)]))


def _cpu_of_children() -> float:
    reaped = resource.getrusage(resource.RUSAGE_CHILDREN)
    living = sum(_cpu_of(pid) for pid in descendants(os.getpid()))
    return living + reaped.ru_utime + reaped.ru_stime


class Meter:
    """Context manager that measures its block; `seconds` and `cpu` are there afterwards."""

    seconds = 0.0
    cpu = 0.0

    def __enter__(self) -> Meter:  # noqa: PYI034  typing.Self is newer than Python 3.10
        """Note both clocks."""
        # The clock of this process is read last here and first at the end: looking through /proc
        # takes milliseconds, which are not the contender's.
        self._children = _cpu_of_children()
        self._own = time.process_time()
        self._start = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        """Subtract what was noted."""
        self.seconds = time.perf_counter() - self._start
        own = time.process_time() - self._own
        self.cpu = own + _cpu_of_children() - self._children

    def sample(self, ops: int, value: float | None = None, **extra: float) -> Sample:
        """Make the sample of what was measured."""
        return Sample(ops, self.seconds, self.cpu, value, extra)


def timed(run: Callable[[Sequence[Any]], object], items: Sequence[Any]) -> Sample:
    """Run a tenth of the items to warm up, then measure all of them."""
    run(items[: _warm_up(items)])
    with Meter() as meter:
        run(items)
    return meter.sample(len(items))


async def timed_async(
    run: Callable[[Sequence[Any]], Coroutine[Any, Any, object]],
    items: Sequence[Any],
) -> Sample:
    """Do what `timed` does, within a running event loop."""
    await run(items[: _warm_up(items)])
    with Meter() as meter:
        await run(items)
    return meter.sample(len(items))


def _warm_up(items: Sequence[Any]) -> int:
    return max(1, len(items) // WARM_UP_SHARE)


def percentile(values: Sequence[float], percent: float) -> float:
    """Give the smallest value that `percent` of all values do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]
