"""Programs of their own that tests run, and how system calls fail or kill in them."""

from __future__ import annotations

import contextlib
import platform
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

EXAMPLES = Path(__file__).resolve().parent.parent / "docs/examples"
X86 = pytest.mark.skipif(platform.machine() != "x86_64", reason="system calls have other numbers")


def run_program(
    program: str,
    *arguments: object,
    flags: tuple[str, ...] = (),
    command: tuple[str, ...] = (),
    **more: Any,
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end: a crash is an exit code here. `command` runs the interpreter."""
    return subprocess.run(
        [*command, sys.executable, *flags, "-c", textwrap.dedent(program), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
        **more,
    )


def run_python(program: str, *arguments: object, **more: Any) -> str:
    """What a program prints. It fails the test with what it says, or skips it with `skip why`."""
    done = run_program(program, *arguments, **more)
    if done.stdout.startswith("skip"):
        pytest.skip(done.stdout.strip())
    assert (done.returncode, done.stderr) == (0, ""), done.stderr + done.stdout
    return done.stdout


@contextlib.contextmanager
def serving(
    name: str, directory: Path, *arguments: object
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run an example as a server. Gives it and its address; unless it was waited for within, it has
    not complained of anything at its end.
    """
    # Where SIGINT is ignored, as in the background of a shell, the server would ignore it too.
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    with subprocess.Popen(
        [sys.executable, "-W", "error", EXAMPLES / name, directory, "0", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as server:
        signal.signal(signal.SIGINT, previous)
        assert server.stdout
        assert server.stderr
        try:
            yield server, server.stdout.readline().strip()
            if server.returncode is None:
                server.send_signal(signal.SIGINT)
                assert (server.wait(30), server.stderr.read()) == (0, "")
        finally:
            server.kill()  # if it has not ended


# To stand before what a program does; workers inherit the filters.
FILTER = """
import ctypes, errno, os, struct, sys

LOAD, EQUAL, ANY_BIT, ANSWER = 0x20, 0x15, 0x45, 0x06
ALLOW, KILL, REFUSE = 0x7FFF0000, 0x80000000, 0x00050000

def filter_call(answer, number, argument=None, value=0, test=EQUAL):
    "Answer a system call so from now on, or only where (the lower half of) an argument is such."
    program = [(LOAD, 0, 0, 0), (EQUAL, 0, 1 if argument is None else 3, number)]
    if argument is not None:
        program += [(LOAD, 0, 0, 16 + 8 * argument), (test, 0, 1, value)]
    program += [(ANSWER, 0, 0, answer), (ANSWER, 0, 0, ALLOW)]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in program))
    what = struct.pack("HxxxxxxQ", len(program), ctypes.addressof(code))
    libc = ctypes.CDLL(None)
    if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, what, 0, 0):
        print("skip: system calls cannot be filtered here")
        sys.exit()

def refuse(number, error):
    "Let a system call fail from now on."
    filter_call(REFUSE | error, number)
"""

# Likewise: what a call comes to.
ERRNO_OF = """
def errno_of(call):
    "0 for success."
    try:
        call()
    except OSError as error:
        return error.errno
    return 0
"""
