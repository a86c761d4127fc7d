"""
How fast is a web server for static files, and whom does a slow disk delay?

Ten files, four connections for each, and a client that asks for the same file again as soon as it
has it. With a slow disk the tenth file is on the file system of `native/slowfs.c`, where each call
takes 20 ms: what is asked is whether those who want the other nine notice. The server is a process
of its own, uvicorn as it comes; the client (`web_client.py`) is another one, and both share two
cores with whatever does the I/O. CPU time is that of the server and its processes.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import urllib.request
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING

from benchmarks import processes, slowfs
from benchmarks.data import KIB, MIB
from benchmarks.harness import ROOT, Kind, Question, Sizes, Work, check, need
from benchmarks.measure import (
    Sample,
    WrongResultError,
    cpu_of_tree,
    percentile,
)
from benchmarks.web_client import Clients, Path

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Iterator

FILES = 10
CONNECTIONS = 4  # for each file
PATIENCE = 20  # seconds for the first answers
MODULES = {
    "memory": ("uvicorn", "starlette"),
    "procaio": ("uvicorn", "starlette", "procaio"),
    "aiofiles": ("uvicorn", "starlette", "procaio", "aiofiles"),
    "starlette": ("uvicorn", "starlette"),
}

SMALL = Question(
    "http",
    __doc__,
    unit="answers/s, nine files",
    reference="from memory",
    full=Sizes(depth=FILES * CONNECTIONS, size=16 * KIB, seconds=3.0),
    quick=Sizes(depth=FILES, size=16 * KIB, seconds=0.1),
    extra=("nine: p50 ms", "nine: p99 ms", "tenth: p50 ms", "tenth: p99 ms"),
    spreads=True,
)
LARGE = replace(
    SMALL,
    name="http_1m",
    text="How fast is it with files of 1 MiB, sent in blocks of 64 KiB?",
    full=Sizes(depth=FILES * CONNECTIONS, size=MIB, seconds=3.0),
    quick=Sizes(depth=FILES, size=MIB, seconds=0.1),
    contenders=[],
)
QUESTIONS = [SMALL, LARGE]


def make_files(directory: pathlib.Path, size: int) -> None:
    """Make nine files, and one in a directory of its own."""
    if directory.exists():
        return
    unfinished = directory.with_suffix(".partial")
    shutil.rmtree(unfinished, ignore_errors=True)
    (unfinished / "fast").mkdir(parents=True)
    for name in [*map(str, range(FILES - 1)), "fast/9"]:
        (unfinished / name).write_bytes(os.urandom(size))
    os.sync()
    unfinished.rename(directory)


@contextmanager
def serving(name: str, directory: pathlib.Path) -> Iterator[tuple[int, int]]:
    """Run the server as long as the context lasts. Gives its port and its number."""
    for module in MODULES[name]:
        need(module)
    command = [sys.executable, "-m", "benchmarks.web_server", name, str(directory)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            line = process.stdout.readline() if process.stdout else ""
            if not line:
                raise WrongResultError("the server did not start")
            yield int(line), process.pid
        finally:
            processes.end(process)


async def ask(port: int, pid: int, paths: list[Path], work: Work) -> tuple[float, float]:
    """Ask for all paths. Gives the seconds it took, and the CPU time of the server."""
    async with Clients(port, paths, work.depth // FILES) as clients:
        await clients.run(work.seconds / 3)  # threads and workers are there by then
        cpu = -cpu_of_tree(pid)
        clients.clock.start = start = perf_counter()
        await clients.run(work.seconds)
        while not all(path.took for path in paths) and perf_counter() < start + PATIENCE:
            await clients.run(work.seconds)  # a tiny run, or a machine that is busy
        clients.clock.end = perf_counter()
        return clients.clock.end - start, cpu + cpu_of_tree(pid)


def serve(work: Work, name: str, *, slow: bool) -> Sample:
    """Run the server, ask it for everything once, then measure."""
    directory = work.data.root / f"web-{work.size}"
    make_files(directory, work.size)
    tenth = "/slow/9" if slow else "/fast/9"
    nine = [Path(f"/{n}", work.size) for n in range(FILES - 1)]
    with ExitStack() as stack:
        if slow:
            options = f"delay_ms={4 * work.data.delay_ms}"
            mount = directory / "slow"
            stack.enter_context(slowfs.mounted(directory / "fast", mount, options))
        port, pid = stack.enter_context(serving(name, directory))
        for path in ("/0", tenth):
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}") as answer:
                check(answer.read() == (directory / f".{path}").read_bytes(), expected=True)
        last = Path(tenth, work.size)
        seconds, cpu = asyncio.run(ask(port, pid, [*nine, last], work))
    took = [one for path in nine for one in path.took]
    if not took or not last.took:
        raise WrongResultError("there were no answers in the time that was given")
    milliseconds = {
        f"{who}: p{percent} ms": percentile(values, percent) * 1000
        for who, values in {"nine": took, "tenth": last.took}.items()
        for percent in (50, 99)
    }
    count = len(took) + len(last.took)
    return Sample(count, seconds, cpu, len(took) / seconds, milliseconds)


WAYS = {
    "procaio": ("procaio", Kind.PROCAIO),
    "aiofiles": ("aiofiles", Kind.PEER),
    "Starlette's own (anyio threads)": ("starlette", Kind.PEER),
}
for question in QUESTIONS:
    question.contender("from memory", Kind.BASELINE)(partial(serve, name="memory", slow=False))
    for title, (name, kind) in WAYS.items():
        question.contender(title, kind)(partial(serve, name=name, slow=False))
        question.contender(f"{title}, a slow disk", kind)(partial(serve, name=name, slow=True))
