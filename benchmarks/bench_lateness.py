"""
How late does a loop notice an event while 64 requests are in flight?

A timer of the kernel makes a descriptor readable a millisecond after the loop has noticed it the
last time, as a client would that sends something; how late the loop calls what watches it is
noted. Meanwhile 64 or 1,000 tasks read cached blocks of 4 KiB without a pause: who reads more has
more to do besides (`reads/s`). The timers of the loops themselves would be too coarse for this.
"""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import replace
from functools import partial

from benchmarks import baselines, peers, reads
from benchmarks.bench_ticker import BLOCKING, TICK, under_callbacks, under_nothing, under_tasks
from benchmarks.harness import Kind, Question, Sizes, need

SECOND = 1_000_000_000  # in nanoseconds

FEW = Question(
    "lateness_64",
    __doc__,
    unit="us late, p99",
    reference="idle loop",
    full=Sizes(depth=64, size=4096, seconds=1.0),
    quick=Sizes(depth=64, size=4096, seconds=0.05),
    needs=frozenset({"file"}),
    extra=("p50", "max", "reads/s"),
    spreads=True,
)
MANY = replace(
    FEW,
    name="lateness_1000",
    text="How late does it notice it while 1,000 requests are in flight?",
    full=Sizes(depth=1000, size=4096, seconds=1.0),
    quick=Sizes(depth=1000, size=4096, seconds=0.05),
    contenders=[],
    aims=[],
)
QUESTIONS = [FEW, MANY]


async def lateness(seconds: float) -> list[float]:
    """Let the timer run out again and again. Gives how late that was noticed, in microseconds."""
    aio = need("procaio")
    loop = asyncio.get_running_loop()
    ended = loop.create_future()
    timer = aio.timerfd_create(time.CLOCK_MONOTONIC, flags=aio.TFD_NONBLOCK | aio.TFD_CLOEXEC)
    end = time.monotonic_ns() + seconds * SECOND
    late = []
    due = 0

    def start() -> None:
        nonlocal due
        due = time.monotonic_ns() + round(TICK * SECOND)
        aio.timerfd_settime_ns(timer, flags=aio.TFD_TIMER_ABSTIME, initial=due)

    def noticed() -> None:
        now = time.monotonic_ns()
        os.read(timer, 8)
        late.append((now - due) / 1000)
        if now < end:
            start()
        elif not ended.done():
            ended.set_result(None)

    loop.add_reader(timer, noticed)
    start()
    try:
        await ended
    finally:
        loop.remove_reader(timer)
        os.close(timer)
    return late


READERS = (
    reads.INTO_BUFFER,
    replace(reads.BY_WORKERS, name="procaio, by workers alone"),
    BLOCKING,
    *baselines.READERS,
    *peers.READERS,
)
LOOPS = {"asyncio": "", "uvloop": ", uvloop"}

for question in QUESTIONS:
    for module, note in LOOPS.items():
        other = Kind.PEER if note else Kind.BASELINE
        idle = partial(under_nothing, measure=lateness, module=module)
        question.contender(f"idle loop{note}", other)(idle)
        callbacks = partial(under_callbacks, measure=lateness, module=module)
        question.contender(f"procaio, callbacks (attach){note}")(callbacks)
        awaited = partial(under_tasks, measure=lateness)
        for reader in READERS:
            kind = other if reader.kind is Kind.BASELINE else reader.kind
            reads.add_reader(
                question, replace(reader, kind=kind), awaited, note=note, module=module
            )
