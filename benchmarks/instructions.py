"""
How many instructions does the program spend on a request?

    python -m benchmarks.instructions [NAME ...]

Counted by valgrind's callgrind, so the numbers are the same on a machine that is busy. The requests
are executed in the program itself (a pool with `inline=True`): valgrind does not know the kind of
processes that workers are. So what a worker does is in it, and giving the interpreter lock away for
that time; what the kernel does is not.

Each way of making requests is run with two numbers of them: the difference is the cost of those
more. 64 are outstanding: each callback makes the next request, or each of 64 tasks awaits the next.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

FEW, MANY = 3_200, 12_800
DEPTH = 64
OPERATIONS = ("no-op", "read into a Buffer", "read, bytes", "stat", "load")
FORMS = ("callback", "callback in asyncio", "await in asyncio")


class Requests:
    """What makes requests of one kind, and the pool that they are of."""

    def __init__(self, operation: str) -> None:
        """Open what they need."""
        import procaio  # noqa: PLC0415 - only in the process that is measured

        self.pool = pool = procaio.Pool(inline=True)
        fd = os.open(__file__, os.O_RDONLY)
        buffer = procaio.Buffer(1024, pool=pool)
        self.make: Callable[..., Any] = {
            "no-op": lambda *done: procaio.aio_nop(*done, pool=pool),
            "read into a Buffer": lambda *done: procaio.aio_read(
                fd, 0, 1024, buffer, 0, *done, pool=pool
            ),
            "read, bytes": lambda *done: procaio.aio_read(fd, 0, 1024, *done, pool=pool),
            "stat": lambda *done: procaio.aio_stat(__file__, *done, pool=pool),
            "load": lambda *done: procaio.aio_load(__file__, *done, pool=pool),
        }[operation]
        self.attach = procaio.attach

    def call_back(self, count: int, ended: Callable[[], object]) -> None:
        """Make the first; the others are made by callbacks."""
        left, outstanding, make = count, 0, self.make

        def done(*_: object) -> None:
            nonlocal left, outstanding
            outstanding -= 1
            start()
            if not outstanding:
                ended()

        def start() -> None:
            nonlocal left, outstanding
            if left:
                left -= 1
                outstanding += 1
                make(done)

        for _ in range(DEPTH):
            start()

    def run(self, form: str, count: int) -> None:
        """Make so many requests."""
        if form == "callback":
            self.call_back(count, lambda: None)
            while self.pool.nreqs():
                self.pool.poll()
        elif form == "callback in asyncio":
            asyncio.run(self._attached(count))
        else:
            asyncio.run(self._await(count))

    async def _attached(self, count: int) -> None:
        ended = asyncio.Event()
        with self.attach(pool=self.pool):
            self.call_back(count, ended.set)
            await ended.wait()

    async def _await(self, count: int) -> None:
        left, make = count, self.make

        async def lane() -> None:
            nonlocal left
            while left:
                left -= 1
                await make()

        await asyncio.gather(*(lane() for _ in range(DEPTH)))


def instructions(operation: str, form: str, count: int) -> int:
    """Count those of a whole program that makes so many requests."""
    with tempfile.TemporaryDirectory() as directory:
        output = Path(directory, "callgrind.out")
        command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={output}", sys.executable]
        command += ["-m", "benchmarks.instructions", "--one", operation, form, str(count)]
        environment = {**os.environ, "PYTHONHASHSEED": "0"}
        subprocess.run(command, check=True, capture_output=True, env=environment)
        found = re.search(r"^(?:summary|totals): (\d+)", output.read_text(), re.MULTILINE)
    if found is None:
        message = "callgrind tells no total"
        raise RuntimeError(message)
    return int(found[1])


def main(arguments: list[str] | None = None) -> int:
    """Print a table: a line for each operation, a column for each form."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.instructions", description=__doc__)
    parser.add_argument("names", nargs="*", help="of operations: all others are left out")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.one:
        operation, form, count = options.one
        Requests(operation).run(form, int(count))
        return 0
    if unknown := [name for name in options.names if name not in OPERATIONS]:
        parser.error(f"unknown: {', '.join(unknown)}; there are {', '.join(OPERATIONS)}")
    if shutil.which("valgrind") is None:
        parser.exit(1, "valgrind is not installed\n")
    print(f"{'instructions':<20}" + "".join(f"{form:>22}" for form in FORMS))
    for operation in options.names or OPERATIONS:
        counts = [
            (instructions(operation, form, MANY) - instructions(operation, form, FEW))
            // (MANY - FEW)
            for form in FORMS
        ]
        print(f"{operation:<20}" + "".join(f"{count:>22,}" for count in counts), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
