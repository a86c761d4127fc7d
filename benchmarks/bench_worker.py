"""
How long does it take to start a process for a program with a heap of 2 GiB?

A worker is asked for, made, and has done its first request; os.fork only has to return. `MiB` is
what eight workers, or one child of os.fork, have to themselves when the program has written to its
whole heap again. The heap is in small pages, as that of most programs.
"""

from __future__ import annotations

import mmap
import os
import signal
import time
from pathlib import Path
from time import perf_counter_ns

from benchmarks.data import MIB
from benchmarks.harness import Kind, Question, Sizes, Work, at_most, need
from benchmarks.measure import Meter, Sample, percentile

WORKERS = 8

QUESTION = Question(
    "worker",
    __doc__,
    unit="ms, median",
    reference="os.fork",
    full=Sizes(count=20, size=2048 * MIB),
    quick=Sizes(count=2, size=4 * MIB),
    extra=("p99", "MiB"),
    noun="processes",
)
QUESTIONS = [QUESTION]


class Heap:
    """Memory of the program's own."""

    def __init__(self, size: int) -> None:
        """All of it is in use."""
        self._memory = mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._memory.madvise(mmap.MADV_NOHUGEPAGE)
        self.rewrite(1)

    def rewrite(self, value: int) -> None:
        """Write to every page."""
        self._memory[:: mmap.PAGESIZE] = bytes([value]) * (len(self._memory) // mmap.PAGESIZE)


def private(*pids: int) -> float:
    """MiB that processes have to themselves."""
    lines = [
        line.split()
        for pid in pids
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        if line.startswith("Private_Dirty:")
    ]
    return sum(int(words[1]) for words in lines) / 1024


def with_times(meter: Meter, times: list[int], kept: float) -> Sample:
    """Give the sample of what was measured, in milliseconds."""
    extra = {"p99": percentile(times, 99) / 1e6, "MiB": kept}
    return meter.sample(len(times), percentile(times, 50) / 1e6, **extra)


@QUESTION.contender("procaio, a worker", target=at_most(0.1))
def worker(work: Work) -> Sample:
    """Kill the only worker, and make a request when it is buried."""
    aio = need("procaio")
    heap, times = Heap(work.size), []
    with aio.Pool(workers=1, at_once=False) as pool, Meter() as meter:
        for _ in range(work.count):
            aio.aio_nop(pool=pool).wait()
            os.kill(pool.statistics().workers[0].pid, signal.SIGKILL)
            while pool.nworkers():
                pool.poll_cb()
            start = perf_counter_ns()
            aio.aio_nop(pool=pool).wait()
            times.append(perf_counter_ns() - start)
    with aio.Pool(workers=WORKERS, at_once=False) as pool:
        requests = [aio.aio_busy(0.5, pool=pool) for _ in range(WORKERS)]
        while pool.nworkers() < WORKERS:
            pool.poll_cb()
        heap.rewrite(2)
        kept = private(*(worker.pid for worker in pool.statistics().workers))
        for request in requests:
            request.wait()
    return with_times(meter, times, kept)


def forked() -> int:
    """Give the child that waits to be killed."""
    pid = os.fork()
    if pid == 0:
        while True:
            time.sleep(100)
    return pid


def end(pid: int) -> None:
    """Kill a child."""
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


@QUESTION.contender("os.fork", Kind.BASELINE)
def fork(work: Work) -> Sample:
    """Until it returns in the program."""
    heap, times = Heap(work.size), []
    with Meter() as meter:
        for _ in range(work.count):
            start = perf_counter_ns()
            pid = forked()
            times.append(perf_counter_ns() - start)
            end(pid)
    pid = forked()
    heap.rewrite(2)
    kept = private(pid)
    end(pid)
    return with_times(meter, times, kept)
