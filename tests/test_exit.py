"""The end of the program, and of a pool in the midst of work (rules A14, A19)."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

import procaio

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Gate


def run(program: str, *options: str, **keywords: str) -> subprocess.CompletedProcess[str]:
    """Run a program that uses procaio to its end."""
    return subprocess.run(
        [sys.executable, *options, "-c", program],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        **keywords,
    )


# -- callbacks that exit ---------------------------------------------------------------------------


def test_exit_in_callbacks_during_close_loses_no_other_callback(pool: procaio.Pool) -> None:
    """close() ends every request and the pool, then the first exception comes out (A14)."""
    seen = []

    def leave(number: int) -> None:
        seen.append(number)
        raise SystemExit(number)

    for number in range(4):
        procaio.aio_nop(lambda number=number: leave(number), pool=pool)
    with pytest.raises(SystemExit):
        pool.close()
    assert seen == [0, 1, 2, 3]
    assert pool.closed


def test_exit_in_a_callback_at_exit_cancels_nothing() -> None:
    """sys.exit() in a callback while the program ends: the other requests are completed too (A19)."""
    ended = run(
        """
import sys, procaio
pools = procaio.default_pool(), procaio.Pool()
for pool in pools:
    for n in range(3):
        request = procaio.aio_busy(0.1, lambda: print(request.errno) or sys.exit(n), pool=pool)
"""
    )
    assert (ended.stdout, ended.stderr, ended.returncode) == ("0\n" * 6, "", 0)


def test_exit_timeout_may_be_infinite() -> None:
    """A program that waits for its requests however long they take says so with math.inf (A19)."""
    ended = run(
        """
import math, procaio
procaio.exit_timeout(math.inf)
request = procaio.aio_busy(0.1, lambda: print(request.errno))
"""
    )
    assert (ended.stdout, ended.stderr, ended.returncode) == ("0\n", "", 0)


def test_close_that_never_ran_leaves_the_handle_open(
    workers: procaio.Pool, gate: Gate, data_file: Path
) -> None:
    """A FileHandle whose aio_close was given up with the pool is open again, not lost."""
    pool = procaio.Pool(workers=1)
    handle = procaio.aio_open(data_file, pool=pool).wait()
    gate.hold(pool)
    closing = [procaio.aio_close(handle, pool=pool)]
    assert handle.closed
    pool._close(0)
    assert closing[0].errno
    with handle:
        assert os.fstat(handle.fileno()).st_size == 65536
