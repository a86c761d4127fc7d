"""
How often is somebody woken, and does the number of workers matter?

Waking a sleeping process costs as much as dozens of cached reads, so a pool has to avoid it. Asked
with 1, 8, 64 and 1,000 outstanding: no-ops, reads of 4 KiB, and such reads by workers alone. "As it
comes" is a pool with nothing set, the others have so many workers.

Counted for 1,000 requests, over all processes: sleeps (voluntary context switches), and the system
calls that wake and wait, where `perf` can be had and may look. Most requests need none of them.
"""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from benchmarks.harness import Question, Sizes, Work, at_least, check, need
from benchmarks.measure import Meter, Sample, descendants

if TYPE_CHECKING:
    from collections.abc import Callable

DEPTHS = (1, 8, 64, 1000)
WORKERS = (1, 2, 4, 8)
AS_IT_COMES = "as it comes"
SIZE = 4096
REQUESTS = 1000  # the counts are for so many
SLEEPS = f"sleeps/{REQUESTS}"
CALLS = {
    f"futex/{REQUESTS}": "futex",
    f"eventfd/{REQUESTS}": "write",
    f"epoll/{REQUESTS}": "epoll_wait",
    f"yield/{REQUESTS}": "sched_yield",
}


def own_processes() -> list[int]:
    """Give this process and all below it."""
    return [os.getpid(), *descendants(os.getpid())]


def sleeps() -> int:
    """Tell how often the processes have gone to sleep since they began."""
    total = 0
    for pid in own_processes():
        with suppress(OSError):  # ended meanwhile
            for line in Path(f"/proc/{pid}/status").read_text().splitlines():
                name, _, value = line.partition(":")
                total += int(value) if name == "voluntary_ctxt_switches" else 0
    return total


class Counter:
    """
    System calls of this process and of those below it, counted by perf(1) while it is told to.

    `counts` are there afterwards: none without perf, or where the kernel does not let us.
    """

    def __init__(self) -> None:
        """Begin with nothing."""
        self.counts: dict[str, int] = {}

    def __enter__(self) -> Counter:  # noqa: PYI034  typing.Self is newer than Python 3.10
        """Let perf attach to the processes and count from now on."""
        with ExitStack() as stack:
            self._output = Path(stack.enter_context(TemporaryDirectory()), "counts")
            ours, self._control = os.pipe()
            self._acknowledged, theirs = os.pipe()
            stack.callback(os.close, self._control)
            stack.callback(os.close, self._acknowledged)
            command = ["perf", "stat", "-x,", "-o", str(self._output), "--delay=-1"]
            command += [f"--event=syscalls:sys_enter_{call}" for call in CALLS.values()]
            command += [
                f"--control=fd:{ours},{theirs}",
                f"--pid={','.join(map(str, own_processes()))}",
            ]
            self._perf = None
            with suppress(FileNotFoundError):
                self._perf = subprocess.Popen(
                    command,
                    pass_fds=(ours, theirs),
                    stderr=subprocess.DEVNULL,
                )
            os.close(ours)
            os.close(theirs)
            self._tell("enable")
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        """Read what was counted."""
        with self._stack:
            self._tell("disable")
            if self._perf is None:
                return
            self._perf.send_signal(signal.SIGINT)
            self._perf.wait()
            counts = self._output.read_text() if self._output.exists() else ""
            for line in counts.splitlines():
                value, _, event = [*line.split(","), "", "", ""][:3]
                for column, call in CALLS.items():
                    if event == f"syscalls:sys_enter_{call}" and value.isdigit():
                        self.counts[column] = int(value)

    def _tell(self, what: str) -> None:
        """Wait until perf does so; if it has ended it never will."""
        with suppress(BrokenPipeError):
            os.write(self._control, f"{what}\n".encode())
            os.read(self._acknowledged, 16)


def no_ops(work: Work) -> Callable[[Callable[[object], None]], object]:
    """Give what makes a no-op."""
    del work
    aio_nop = need("procaio").aio_nop
    return lambda done: aio_nop(partial(done, None))


def reads(work: Work) -> Callable[[Callable[[object], None]], object]:
    """Give what makes a read at the next random offset, into a Buffer."""
    aio = need("procaio")
    aio_read, fd, buffer = aio.aio_read, work.open(), aio.Buffer(SIZE)
    offsets = iter(work.offsets() * 2)  # some are for warming up
    return lambda done: aio_read(fd, next(offsets), SIZE, buffer, 0, done)


def reads_by_workers(work: Work) -> Callable[[Callable[[object], None]], object]:
    """Give what makes a read that no fast path does."""
    need("procaio").at_once(False)
    return reads(work)


def measure(work: Work, make: Callable[..., Any], workers: int | None) -> Sample:
    """Keep `depth` outstanding; each callback makes the next request."""
    aio = need("procaio")
    if workers is not None:
        aio.min_parallel(workers)
        aio.max_parallel(workers)
    request = make(work)

    def run(count: int) -> None:
        left = count

        def done(_: object) -> None:
            nonlocal left
            if left:
                left -= 1
                request(done)

        for _ in range(min(work.depth, count)):
            done(None)
        while aio.nreqs():
            aio.poll()
        check(left, 0)

    run(work.count // 2)
    with Counter() as counter:
        slept = sleeps()
        with Meter() as meter:
            run(work.count)
        slept = sleeps() - slept
    counts = {SLEEPS: slept, **counter.counts}
    rates = {column: count * REQUESTS / work.count for column, count in counts.items()}
    return meter.sample(work.count, **rates)


def question(name: str, make: Callable[..., Any], depth: int, count: int) -> Question:
    """Make the question of one kind of request and one depth."""
    asked = Question(
        f"wakeups_{name}_{depth}",
        __doc__,
        unit="ops/s",
        reference=AS_IT_COMES,
        full=Sizes(count=count, depth=depth, size=SIZE),
        quick=Sizes(count=200, depth=depth, size=SIZE),
        needs=frozenset({"file"}),
        extra=(SLEEPS, *CALLS),
    )
    names = {workers: f"{workers} worker{'s' * (workers > 1)}" for workers in WORKERS}
    for workers, title in {None: AS_IT_COMES, **names}.items():
        asked.contender(title)(partial(measure, make=make, workers=workers))
    asked.aim(AS_IT_COMES, at_least(0.9), "the best number", names.values())
    return asked


QUESTIONS = [
    question(name, make, depth, count if depth > 1 else count // 10)
    for name, make, count in (
        ("noop", no_ops, 200_000),
        ("read", reads, 200_000),
        ("worker_read", reads_by_workers, 200_000),
    )
    for depth in DEPTHS
]
