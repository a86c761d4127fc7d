"""
How many gigabytes a second are read from a cached file, 1 MiB at a time?

Here the copying is the work, and it needs no lock of Python: with two cores it can be twice as
fast as the loop, which is `os.preadv` into one buffer that is used again and again. The C program
has two threads that do nothing else, with as much memory as the others.
"""

from __future__ import annotations

from benchmarks import baselines, peers, reads
from benchmarks.data import MIB
from benchmarks.harness import Kind, Question, Sizes, Work, at_least
from benchmarks.measure import Sample, timed

QUESTION = Question(
    "read_1m",
    __doc__,
    unit="GB/s",
    reference="os.preadv in a loop, reused buffer",
    full=Sizes(count=4096, depth=8, size=MIB),
    quick=Sizes(count=64, depth=8, size=MIB),
    needs=frozenset({"file"}),
    factor=MIB / 1e9,
)
QUESTIONS = [QUESTION]
OURS = "procaio, into a Buffer, callbacks"


@QUESTION.contender(OURS, target=at_least(1.2))
def procaio_buffer(work: Work) -> Sample:
    """Every callback makes the next request."""
    return reads.callbacks_into_buffer(work, work.blocks())


@QUESTION.contender("procaio, as bytes, callbacks")
def procaio_bytes(work: Work) -> Sample:
    """Every callback makes the next request."""
    return reads.callbacks_with_bytes(work, work.blocks())


in_tasks = reads.awaiting(Work.blocks)
reads.add_reader(QUESTION, reads.INTO_BUFFER, in_tasks, note=", await")


@QUESTION.contender("os.preadv in a loop, reused buffer", Kind.BASELINE)
def blocking(work: Work) -> Sample:
    """One after the other, on one core."""
    return timed(baselines.preadv_loop(work), work.blocks())


baselines.add_shares(QUESTION, baselines.preadv_loop, Work.blocks)
baselines.add_pool(QUESTION, lambda work: baselines.preadv_job(work, work.blocks()))
for reader in (*baselines.READERS, *peers.READERS):
    reads.add_reader(QUESTION, reader, in_tasks)
peers.add_perl(
    QUESTION,
    "read.pl",
    lambda work: [work.depth, work.data.file, work.size],
    Work.blocks,
)


@QUESTION.contender(peers.BY_PLAIN_CALLS, Kind.BASELINE)
def plain_calls(work: Work) -> Sample:
    """Each thread has half of the buffers."""
    return peers.plain_calls("read", work.blocks(), work.data.file, work.size, work.depth)


QUESTION.aim(OURS, at_least(0.95), peers.BY_PLAIN_CALLS)
