"""Data: what reads go into and writes come from (rules A9, C)."""

from __future__ import annotations

import array
import ctypes
import errno
import mmap
import os
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import procaio

if TYPE_CHECKING:
    from conftest import Gate


# -- bytearray -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "length", "offset", "after"),
    [(0, 16, 0, 16), (99, 16, 0, 16), (4, 16, 4, 20), (8, 16, -2, 22), (8, 0, 3, 3), (8, 9, 8, 17)],
)
def test_bytearray_is_resized_to_what_was_read(  # noqa: PLR0917 - a table
    pool: procaio.Pool, fd: int, before: int, length: int, offset: int, after: int
) -> None:
    """To dataoffset + the bytes read; a negative dataoffset counts from the end (C1, C3, C4)."""
    data = bytearray(b"o" * before)
    assert procaio.aio_read(fd, 16, length, data, offset, pool=pool).wait() == length
    start = offset if offset >= 0 else before + offset
    assert len(data) == after
    assert data == b"o" * start + os.pread(fd, length, 16)


def test_bytearray_is_cut_at_the_end_of_file(pool: procaio.Pool, fd: int) -> None:
    """End of file cuts to dataoffset, a short read to what came (C2)."""
    data = bytearray(b"keep this")
    assert procaio.aio_read(fd, 65536, 100, data, 4, pool=pool).wait() == 0
    assert data == b"keep"
    assert procaio.aio_read(fd, 65530, 100, data, 4, pool=pool).wait() == 6
    assert data == b"keep" + os.pread(fd, 6, 65530)


@pytest.mark.better
def test_data_stay_as_they_were_on_an_error(pool: procaio.Pool) -> None:
    """A read that fails changes neither size nor content (C2)."""
    for data in (bytearray(b"before"), memoryview(bytearray(b"before")), np.arange(6.0)):
        before = bytes(data)
        request = procaio.aio_read(-1, 0, 3, data, pool=pool)
        pool.flush()
        assert request.errno == errno.EBADF
        assert bytes(data) == before


def test_bytearray_cannot_be_resized_while_a_read_is_in_flight(
    workers: procaio.Pool, gate: Gate
) -> None:
    """Its memory is exported until the request is done, and only until then (C7)."""
    data = bytearray(b"12345678")
    request = procaio.aio_read(gate.fd, None, 1, data, pool=workers)
    with pytest.raises(BufferError):
        data.append(1)
    assert bytes(data) == b"12345678"
    gate.open()
    assert request.wait() == 1
    data.append(1)
    assert data == b"x\x01"


def test_bytearray_is_free_when_its_read_was_cancelled(workers: procaio.Pool, gate: Gate) -> None:
    workers.max_parallel(1)
    gate.hold(workers)
    data = bytearray(b"12345678")
    assert procaio.aio_read(gate.fd, None, 1, data, pool=workers).cancel()
    workers.poll_cb()
    data.clear()
    gate.open()
    workers.flush()


def test_bytearray_that_others_hold_is_an_error_not_a_crash(pool: procaio.Pool, fd: int) -> None:
    """Where it cannot be resized the request fails; where it need not be, it succeeds."""
    data = bytearray(16)
    with memoryview(data):
        assert procaio.aio_read(fd, 0, 16, data, pool=pool).wait() == 16
        with pytest.raises(OSError) as raised:
            procaio.aio_read(fd, 0, 8, data, pool=pool).wait()
        assert raised.value.errno == errno.EBUSY
    assert len(data) == 16


# -- memory of fixed size --------------------------------------------------------------------------

FIXED = {
    "memoryview": lambda: memoryview(bytearray(b"o" * 64)),
    "array": lambda: array.array("I", b"o" * 64),
    "numpy": lambda: np.frombuffer(bytearray(b"o" * 64), np.uint16).reshape(4, 8),
    "mmap": lambda: filled_mmap(64),
    "ctypes": lambda: (ctypes.c_char * 64)(*b"o" * 64),
    "Buffer": lambda: filled_buffer(64),
}


def filled_mmap(size: int) -> mmap.mmap:
    """Private memory of the system's."""
    made = mmap.mmap(-1, size)
    made[:] = b"o" * size
    return made


def filled_buffer(size: int) -> procaio.Buffer:
    """A Buffer of the default pool."""
    made = procaio.Buffer(size)
    made[:] = b"o" * size
    return made


@pytest.mark.parametrize("kind", FIXED)
def test_fixed_memory_keeps_its_size(pool: procaio.Pool, fd: int, kind: str) -> None:
    """Only the bytes that were read change; what does not fit is a ValueError (C1)."""
    data: Any = FIXED[kind]()
    assert procaio.aio_read(fd, 16, 32, data, 5, pool=pool).wait() == 32
    assert bytes(memoryview(data).cast("B")) == b"o" * 5 + os.pread(fd, 32, 16) + b"o" * 27
    assert procaio.aio_read(fd, 65532, 32, data, -32, pool=pool).wait() == 4
    assert bytes(memoryview(data).cast("B"))[32:36] == os.pread(fd, 4, 65532)
    assert bytes(memoryview(data).cast("B"))[37:] == b"o" * 27
    assert procaio.aio_read(fd, 0, 0, data, 64, pool=pool).wait() == 0
    for length, offset in ((65, 0), (64, 1), (1, 64), (33, -32)):
        with pytest.raises(ValueError, match="fit"):
            procaio.aio_read(fd, 0, length, data, offset, pool=pool)


@pytest.mark.parametrize("kind", [*FIXED, "bytes", "bytearray"])
def test_all_kinds_of_memory_are_written(pool: procaio.Pool, fd: int, kind: str) -> None:
    data: Any = {"bytes": bytes, "bytearray": bytearray}.get(kind, lambda _: FIXED[kind]())(
        b"o" * 64
    )
    assert procaio.aio_write(fd, 3, 60, data, 4, pool=pool).wait() == 60
    assert os.pread(fd, 61, 3) == b"o" * 60 + os.pread(fd, 1, 63)


def test_memory_is_held_while_a_read_is_in_flight(workers: procaio.Pool, gate: Gate) -> None:
    """An mmap cannot be closed, an array not be resized under the worker's result (C7)."""
    mapping, numbers = mmap.mmap(-1, 4096), array.array("B", bytes(8))
    requests = [
        procaio.aio_read(gate.fd, None, 1, mapping, pool=workers),
        procaio.aio_read(gate.fd, None, 1, numbers, pool=workers),
    ]
    with pytest.raises(BufferError):
        mapping.close()
    with pytest.raises(BufferError):
        numbers.append(1)
    gate.open(2)
    assert [request.wait() for request in requests] == [1, 1]
    mapping.close()
    numbers.append(1)


def test_reads_into_parts_of_one_array_do_not_disturb_each_other(
    pool: procaio.Pool, fd: int
) -> None:
    data = np.zeros(65536, np.uint8)
    order = np.random.default_rng(1).permutation(64)
    for n in order:
        procaio.aio_read(fd, int(n) * 1024, 1024, data[n * 1024 : (n + 1) * 1024], pool=pool)
    pool.flush()
    assert data.tobytes() == os.pread(fd, 65536, 0)


# -- large -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [4095, 4096, 256 << 10, (8 << 20) - 1, (8 << 20) + 1, 48 << 20])
def test_reads_and_writes_of_any_size_are_whole(pool: procaio.Pool, fd: int, size: int) -> None:
    """Small blocks, shared segments, segments of their own: every byte arrives."""
    data = np.random.default_rng(size).bytes(size)
    assert procaio.aio_write(fd, 7, None, data, pool=pool).wait() == size
    assert procaio.aio_read(fd, 7, size, pool=pool).wait() == data
    target = bytearray()
    assert procaio.aio_read(fd, 7, size, target, pool=pool).wait() == size
    assert target == data
    with procaio.Buffer(size, pool) as buffer:
        assert procaio.aio_read(fd, 7, size, buffer, pool=pool).wait() == size
        assert memoryview(buffer) == data


def test_large_reads_give_their_shared_memory_back(pool: procaio.Pool, fd: int) -> None:
    os.ftruncate(fd, 16 << 20)
    procaio.aio_read(fd, 0, 16 << 20, pool=pool).wait()
    before = pool.statistics().shared_bytes
    for _ in range(5):
        assert len(procaio.aio_read(fd, 0, 16 << 20, pool=pool).wait()) == 16 << 20
    assert pool.statistics().shared_bytes == before


@pytest.mark.slow
@pytest.mark.parametrize("target", ["bytes", "Buffer"])
def test_a_gibibyte_is_read_in_one_request(workers: procaio.Pool, fd: int, target: str) -> None:
    """Up to 1 GiB in one request; a sparse file with marks at its ends and in the middle."""
    size = 1 << 30
    os.ftruncate(fd, 0)
    os.ftruncate(fd, size)
    marks = {0: b"first", size // 2: b"middle", size - 4: b"last"}
    for offset, mark in marks.items():
        os.pwrite(fd, mark, offset)
    data: Any
    if target == "bytes":
        data = procaio.aio_read(fd, 0, size, pool=workers).wait()
        assert len(data) == size
    else:
        data = procaio.Buffer(size, workers)
        assert procaio.aio_read(fd, 0, size, data, pool=workers).wait() == size
    view = np.frombuffer(data, np.uint8)
    for offset, mark in marks.items():
        assert view[offset : offset + len(mark)].tobytes() == mark
    assert np.count_nonzero(view) == sum(map(len, marks.values()))
    del view, data


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    steps=st.lists(
        st.tuples(st.integers(0, 2000), st.binary(max_size=300), st.integers(0, 3000)), max_size=20
    )
)
def test_random_reads_and_writes_agree_with_a_bytearray(
    pool: procaio.Pool, fd: int, steps: list[tuple[int, bytes, int]]
) -> None:
    """A file is a bytearray that grows: whatever order, what was written is read."""
    os.ftruncate(fd, 0)
    model = bytearray()
    for offset, data, where in steps:
        assert procaio.aio_write(fd, offset, None, data, pool=pool).wait() == len(data)
        if data:
            model.extend(bytes(max(0, offset + len(data) - len(model))))
            model[offset : offset + len(data)] = data
        got = procaio.aio_read(fd, where, 500, pool=pool).wait()
        assert got == model[where : where + 500]
