"""
How fast are random reads of 4 KiB from a cached file?

With callbacks the blocking loop is to be beaten: `os.pread` on one core, which allocates a bytes
object for each block; and whatever else is asynchronous, the readers of asyncio too. With await in
asyncio, where a task switch comes on top for everybody, the loop is nearly to be reached.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

from benchmarks import baselines, peers, reads
from benchmarks.harness import CPU, Kind, Question, Sizes, Work, at_least, at_most, need
from benchmarks.measure import Sample, timed

if TYPE_CHECKING:
    from collections.abc import Sequence

OURS = reads.INTO_BUFFER.name
BLOCKING = "os.pread in a loop"
CALLBACKS = Question(
    "read_4k",
    __doc__,
    unit="ops/s",
    reference=BLOCKING,
    full=Sizes(count=200_000, depth=64, size=4096),
    quick=Sizes(count=1_000, depth=64, size=4096),
    needs=frozenset({"file"}),
)
AWAIT = replace(
    CALLBACKS,
    name="read_4k_await",
    text="How fast are they when 64 tasks of asyncio await them?",
    reference="aiofile",
    contenders=[],
    aims=[],
)
QUESTIONS = [CALLBACKS, AWAIT]


@CALLBACKS.contender(OURS, target=at_least(1.2))
def procaio_buffer(work: Work) -> Sample:
    """Every callback makes the next request."""
    return reads.callbacks_into_buffer(work, work.offsets())


@CALLBACKS.contender(reads.BY_WORKERS.name)
def procaio_buffer_by_workers(work: Work) -> Sample:
    """Without what the program does at once."""
    need("procaio").at_once(False)
    return reads.callbacks_into_buffer(work, work.offsets())


@CALLBACKS.contender("procaio, as bytes", target=at_least(0.6))
def procaio_bytes(work: Work) -> Sample:
    """Every callback makes the next request."""
    return reads.callbacks_with_bytes(work, work.offsets())


@AWAIT.contender(BLOCKING, Kind.BASELINE)
@CALLBACKS.contender(BLOCKING, Kind.BASELINE)
def blocking(work: Work) -> Sample:
    """One after the other, on one core."""
    fd = work.open()
    size = work.size

    def run(offsets: Sequence[int]) -> None:
        pread = os.pread
        for offset in offsets:
            pread(fd, size, offset)

    return timed(run, work.offsets())


@CALLBACKS.contender("os.preadv in a loop, reused buffer", Kind.BASELINE)
def blocking_buffer(work: Work) -> Sample:
    """Read without making a new object for each block."""
    return timed(baselines.preadv_loop(work), work.offsets())


in_tasks = reads.awaiting(Work.offsets)
UVLOOP = replace(reads.INTO_BUFFER, name="procaio, into a Buffer, uvloop", kind=Kind.PEER)

reads.add_reader(AWAIT, reads.INTO_BUFFER, in_tasks, target=at_least(1.2))
reads.add_reader(AWAIT, reads.AS_BYTES, in_tasks, target=at_least(1.2))
reads.add_reader(AWAIT, UVLOOP, in_tasks, module="uvloop")
for reader in (*baselines.READERS, *peers.READERS):
    reads.add_reader(AWAIT, reader, in_tasks, share=reader.share)
AWAIT.aim(OURS, at_least(0.9), BLOCKING)

baselines.add_shares(CALLBACKS, baselines.preadv_loop, Work.offsets)
POOLS = baselines.add_pool(
    CALLBACKS,
    lambda work: baselines.preadv_job(work, work.offsets()),
    baselines.THREADS_SHARE,
)
READERS = [
    reads.add_reader(CALLBACKS, reader, in_tasks, share=reader.share, note=", await")
    for reader in (peers.AIOFILE, *peers.CAIO)
]
PERL = peers.add_perl(
    CALLBACKS,
    "read.pl",
    lambda work: [work.depth, work.data.file, work.size],
    Work.offsets,
)
peers.add_ring_limit(CALLBACKS, lambda work: [work.data.file])
CALLBACKS.aim(OURS, at_least(1.5), "the best asynchronous peer", {*POOLS, *READERS, *PERL.values()})
CALLBACKS.aim(OURS, at_most(1.5), BLOCKING, of=CPU)
