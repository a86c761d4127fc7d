"""Data: what reads go into and writes come from (rules A9, C)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

import procaio

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def fd(data_file: Path) -> Iterator[int]:
    """The data file, open for reading and writing."""
    number = os.open(data_file, os.O_RDWR)
    yield number
    os.close(number)


# -- Buffer -----------------------------------------------------------------------------------------


def test_buffer_of_another_pool_is_copied(pool: procaio.Pool, fd: int) -> None:
    """A Buffer serves every pool: where its workers do not see it, it is memory like any other."""
    with procaio.Pool(inline=True) as other, procaio.Buffer(32, other) as buffer:
        assert procaio.aio_read(fd, 16, 32, buffer, pool=pool).wait() == 32
        assert buffer[:] == os.pread(fd, 32, 16)
        buffer[:4] = b"mine"
        assert procaio.aio_write(fd, 0, 4, buffer, pool=pool).wait() == 4
    assert os.pread(fd, 4, 0) == b"mine"
