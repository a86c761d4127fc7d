"""
The same work with what others offer: aiofile and caio, aiofiles, anyio, Perl's IO::AIO, and C.

None of them has to be there. What is not gives `MissingError`, and its row in the table says so.
What reads into a buffer of ours gets one that begins at a page, or is told where in it one begins,
as in Perl. aiofile, caio and aiofiles make an object for each block.

The C program is no peer but the limit: the same rings and nothing else. `make` builds it.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from benchmarks.harness import ROOT, Kind, Question, Work, need
from benchmarks.measure import MissingError, Sample, WrongResultError
from benchmarks.reads import AwaitOne, Reader, aligned

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from pathlib import Path

PERL = ROOT / "benchmarks" / "perl"
PERL_THREADS = (1, 2, 8)
RING_LIMIT = ROOT / "build" / "ring_limit"
PLAIN_CALLS = ROOT / "build" / "plain_calls"
PLAIN_THREADS = 2
BY_PLAIN_CALLS = f"C, {PLAIN_THREADS} threads, plain calls"
RING_LIMIT_SECONDS = 1  # it counts in whole ones
RING_LIMIT_WORKERS = (1, 2, 8)
CAIO_VARIANTS = {
    "caio, io_uring": "caio.linux_uring_asyncio",
    "caio, Linux AIO": "caio.linux_aio_asyncio",
    "caio, C threads": "caio.thread_aio_asyncio",
}


@asynccontextmanager
async def _in_aiofile(work: Work) -> AsyncIterator[AwaitOne]:
    async with need("aiofile").AIOFile(work.data.file, "rb") as file:
        yield lambda _, offset: file.read_bytes(work.size, offset)


@asynccontextmanager
async def _in_caio(work: Work, module: str) -> AsyncIterator[AwaitOne]:
    """Read with a context of caio, with its own defaults."""
    fd = work.open()
    async with caio_context(module) as context:
        yield lambda _, offset: context.read(work.size, fd, offset)


def caio_context(module: str) -> Any:
    """Make a context of caio."""
    try:
        return need(module).AsyncioContext()
    except OSError as error:  # built, but the kernel refuses: no io_uring in many containers
        raise MissingError(str(error)) from error


@asynccontextmanager
async def aiofiles_for_lanes(work: Work, path: Path, mode: str) -> AsyncIterator[list[Any]]:
    """Open a file with aiofiles, once for each lane."""
    aiofiles = need("aiofiles")
    allow_many_files()
    async with AsyncExitStack() as stack:
        opened = (aiofiles.open(path, mode, buffering=0) for _ in range(work.depth))
        yield [await stack.enter_async_context(file) for file in opened]


def allow_many_files() -> int:
    """Let this process open as many files as it may at most. Gives how many these are."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return most


@asynccontextmanager
async def _in_aiofiles(work: Work) -> AsyncIterator[AwaitOne]:
    """Seek and read, in a file for each lane because its position is state."""
    async with aiofiles_for_lanes(work, work.data.file, "rb") as files:

        async def one(lane: int, offset: int) -> object:
            await files[lane].seek(offset)
            return await files[lane].read(work.size)

        yield one


@asynccontextmanager
async def _in_anyio(work: Work) -> AsyncIterator[AwaitOne]:
    """Each lane has its own buffer; anyio has up to 40 threads."""
    to_thread = need("anyio.to_thread")
    fd = work.open()
    buffers = [[aligned(work.size)] for _ in range(work.depth)]
    yield lambda lane, offset: to_thread.run_sync(os.preadv, fd, buffers[lane], offset)


AIOFILE = Reader("aiofile", Kind.PEER, _in_aiofile, share=0.3)
CAIO = [
    Reader(name, Kind.PEER, partial(_in_caio, module=module), share=0.3)
    for name, module in CAIO_VARIANTS.items()
]
AIOFILES = Reader("aiofiles", Kind.PEER, _in_aiofiles, share=0.05)
ANYIO = Reader("anyio.to_thread", Kind.PEER, _in_anyio, share=0.05)
READERS = [AIOFILE, *CAIO, AIOFILES, ANYIO]


def add_perl(
    question: Question,
    script: str,
    arguments: Callable[[Work], Sequence[int | Path]],
    items: Callable[[Work], Sequence[int | str]],
    note: str = "",
) -> dict[int, str]:
    """
    Register a Perl script, with each number of threads. Gives the names of the contenders.

    It gets that number as its first argument, and the items as lines of input.
    """

    def run(work: Work, threads: int) -> Sample:
        lines = "\n".join(map(str, items(work)))
        return perl(script, lines, threads, *arguments(work))

    names = {threads: perl_name(threads) + note for threads in PERL_THREADS}
    for threads, name in names.items():
        question.contender(name, Kind.PEER)(partial(run, threads=threads))
    return names


def perl_name(threads: int) -> str:
    """Give the name of a contender."""
    return f"Perl IO::AIO, {threads} thread{'s' if threads > 1 else ''}"


def perl(script: str, lines: str, *arguments: int | str | Path) -> Sample:
    """Run a script that reads lines and prints a sample as JSON."""
    program = shutil.which("perl")
    if program is None:
        message = "perl"
        raise MissingError(message)
    if subprocess.call([program, "-MIO::AIO", "-e", "1"], stderr=subprocess.DEVNULL):
        message = "Perl module IO::AIO (Debian: libio-aio-perl)"
        raise MissingError(message)
    answer, _ = output_of([program, str(PERL / script), *map(str, arguments)], lines)
    return Sample(**answer)


def add_ring_limit(
    question: Question, arguments: Callable[[Work], Sequence[Path]]
) -> frozenset[str]:
    """Register the C program, with few workers and with as many as procaio has by default."""

    def run(work: Work, workers: int) -> Sample:
        words = ("look", workers, "many", work.depth, RING_LIMIT_SECONDS)
        return ring_limit(*words, *arguments(work))

    names = {
        f"C, same rings, {workers} worker{'s' if workers > 1 else ''}": workers
        for workers in RING_LIMIT_WORKERS
    }
    for name, workers in names.items():
        question.contender(name, Kind.BASELINE)(partial(run, workers=workers))
    return frozenset(names)


def ring_limit(*arguments: int | str | Path) -> Sample:
    """Run the C program that has the same rings, and nothing else."""
    if not RING_LIMIT.exists():
        message = f"{RING_LIMIT.relative_to(ROOT)} (make builds it)"
        raise MissingError(message)
    answer, cpu = output_of([str(RING_LIMIT), *map(str, arguments)])
    if not answer["ops"]:
        message = "ring_limit did nothing"
        raise WrongResultError(message)
    # The CPU time is that of the whole process: it does nothing else.
    return Sample(cpu=cpu, **answer)


def plain_calls(what: str, items: Sequence[int | str], *arguments: int | Path) -> Sample:
    """Run the C program that makes system calls in two threads, and nothing else."""
    if not PLAIN_CALLS.exists():
        message = f"{PLAIN_CALLS.relative_to(ROOT)} (make builds it)"
        raise MissingError(message)
    command = [PLAIN_CALLS, PLAIN_THREADS, what, *arguments]
    answer, _ = output_of([*map(str, command)], "\n".join(map(str, items)))
    if not answer["ops"]:
        message = "plain_calls has failed"
        raise WrongResultError(message)
    return Sample(**answer)


def output_of(command: list[str], lines: str = "") -> tuple[dict[str, Any], float]:
    """Run a program. Gives the JSON it printed, and the CPU seconds it took."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, input=lines, stdout=subprocess.PIPE, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return json.loads(done.stdout), cpu
