"""Data: what reads go into and writes come from (rules A9, C)."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

import pytest

import procaio

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from conftest import Gate


@pytest.fixture
def fd(data_file: Path) -> Iterator[int]:
    """The data file, open for reading and writing."""
    number = os.open(data_file, os.O_RDWR)
    yield number
    os.close(number)


# -- Buffer ----------------------------------------------------------------------------------------


def test_buffer_of_another_pool_is_copied(pool: procaio.Pool, fd: int) -> None:
    """A Buffer serves every pool: where its workers do not see it, it is memory like any other."""
    with procaio.Pool(inline=True) as other, procaio.Buffer(32, other) as buffer:
        assert procaio.aio_read(fd, 16, 32, buffer, pool=pool).wait() == 32
        assert buffer[:] == os.pread(fd, 32, 16)
        buffer[:4] = b"mine"
        assert procaio.aio_write(fd, 0, 4, buffer, pool=pool).wait() == 4
    assert os.pread(fd, 4, 0) == b"mine"


def test_forked_child_frees_nothing_of_the_parent(gate: Gate, fd: int) -> None:
    """What a child lets go of (data of requests in flight, Buffers) stays whole in the parent."""
    large, seen = 16 << 20, []
    os.truncate(fd, large)
    with procaio.Pool(workers=1) as pool:
        gate.hold(pool)
        procaio.aio_read(fd, 0, large, seen.append, pool=pool)  # only the pool has this one
        write = procaio.aio_write(fd, 0, large, b"w" * large, pool=pool, pri=1)
        buffer = procaio.Buffer(large, pool)
        pid = os.fork()
        if pid == 0:
            good = False
            with contextlib.suppress(BaseException):
                procaio.aio_nop(pool=pool).wait()
                del write, buffer
                blocks = [procaio.Buffer(large, pool), procaio.Buffer(large, pool)]
                blocks[0][:], blocks[1][:] = b"0" * large, b"1" * large
                good = blocks[0][:] == b"0" * large
            os._exit(not good)
        assert os.waitpid(pid, 0)[1] == 0
        buffer[:1] = b"b"
        gate.open()
        pool.flush()
        assert write.result == large
        assert seen == [b"w" * large]
        assert buffer[:2] == b"b\0"
        buffer.release()
