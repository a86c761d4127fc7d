"""Buffer: memory that the program and its workers share, used without a copy (rule A9)."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

import numpy as np
import pytest

import procaio

if TYPE_CHECKING:
    from conftest import Gate


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


def test_buffer_is_read_into_and_written_from_in_place(pool: procaio.Pool, fd: int) -> None:
    """The bytes are there without a copy; len(), indexing and views tell the same."""
    with procaio.Buffer(64, pool) as buffer:
        assert (len(buffer), bytes(memoryview(buffer))) == (64, bytes(64))
        view = memoryview(buffer)
        assert not view.readonly
        assert procaio.aio_read(fd, 16, 32, buffer, 8, pool=pool).wait() == 32
        assert view[8:40] == buffer[8:40] == os.pread(fd, 32, 16)
        assert (buffer[0], buffer[23], buffer[-1]) == (0, 1, 0)
        buffer[0:4] = b"head"
        assert procaio.aio_write(fd, 0, 4, buffer, pool=pool).wait() == 4
        view.release()
    assert os.pread(fd, 4, 0) == b"head"
    assert repr(buffer) == "<Buffer size=64 released>"


def test_buffer_is_written_as_it_is_when_the_request_runs(
    workers: procaio.Pool, gate: Gate, fd: int
) -> None:
    """Only the content of a Buffer is used in place; everything else is copied in the call (A9)."""
    workers.max_parallel(1)
    gate.hold(workers)
    buffer = procaio.Buffer(4, workers)
    array = np.frombuffer(buffer, np.uint8)
    requests = [
        procaio.aio_write(fd, 0, 4, buffer, pool=workers),
        procaio.aio_write(fd, 4, 2, array[1:3], pool=workers),
    ]
    buffer[:] = b"late"
    gate.open()
    workers.flush()
    assert [request.result for request in requests] == [4, 2]
    assert os.pread(fd, 6, 0) == b"lateat"


def test_numpy_array_over_a_buffer_is_read_into_in_place(pool: procaio.Pool, fd: int) -> None:
    """Whatever lies in a Buffer is as good as the Buffer: arrays, their slices, memoryviews."""
    buffer = procaio.Buffer(1 << 16, pool)
    array = np.frombuffer(buffer, ">u8").reshape(4096, 2)
    rows = array[100:200]
    assert procaio.aio_read(fd, 0, 1600, rows, pool=pool).wait() == 1600
    assert (rows[:, 1] == np.arange(100)).all()
    assert not array[:100].any()
    assert not array[200:].any()
    with memoryview(buffer)[16:32] as view:
        assert procaio.aio_read(fd, 160, 8, view, 8, pool=pool).wait() == 8
    assert buffer[24:32] == os.pread(fd, 8, 160)
    before = pool.statistics().shared_bytes
    for _ in range(50):
        procaio.aio_read(fd, 0, 1600, rows, pool=pool)
    pool.flush()
    assert pool.statistics().shared_bytes == before


def test_buffer_released_in_flight_goes_when_the_request_is_done(
    workers: procaio.Pool, gate: Gate
) -> None:
    """Until then the worker may write into it; afterwards the memory is free again (A9)."""
    used = workers.statistics().shared_bytes
    buffer = procaio.Buffer(32 << 20, workers)
    request = procaio.aio_read(gate.fd, None, 1, buffer, pool=workers)
    buffer.release()
    assert workers.statistics().shared_bytes >= used + (32 << 20)
    with pytest.raises(ValueError, match="released"):
        memoryview(buffer)
    for use in (lambda: len(buffer), lambda: buffer[0], buffer.__enter__):
        with pytest.raises(ValueError, match="released"):
            use()
    buffer.release()
    gate.open()
    assert request.wait() == 1
    assert workers.statistics().shared_bytes < used + (32 << 20)


def test_buffer_lives_as_long_as_a_view_of_it(pool: procaio.Pool, fd: int) -> None:
    buffer = procaio.Buffer(1 << 16, pool)
    array = np.frombuffer(buffer, np.uint8)
    buffer.release()
    del buffer
    assert procaio.aio_read(fd, 0, 1 << 16, array, pool=pool).wait() == 1 << 16
    assert array.tobytes() == os.pread(fd, 1 << 16, 0)


def test_buffer_outlives_its_pool(fd: int) -> None:
    """It stays usable until it is released, also for other pools."""
    with procaio.Pool(inline=True) as first:
        buffer = procaio.Buffer(16, first)
    buffer[:4] = b"kept"
    with procaio.Pool(inline=True) as second:
        assert procaio.aio_read(fd, 16, 8, buffer, 8, pool=second).wait() == 8
    assert buffer[:8] == b"kept\0\0\0\0"
    assert buffer[8:] == os.pread(fd, 8, 16)


def test_buffer_memory_is_given_back(pool: procaio.Pool) -> None:
    """Released or collected, large or small: the shared memory does not grow."""
    for size in (1, 4096, 1 << 20, 16 << 20):
        for _ in range(3):
            with procaio.Buffer(size, pool):
                pass
        settled = pool.statistics().shared_bytes
        for _ in range(40):
            procaio.Buffer(size, pool)[:1] = b"x"
        assert pool.statistics().shared_bytes == settled


def test_new_buffer_is_zeroed(pool: procaio.Pool) -> None:
    """What another one had there is not seen."""
    with procaio.Buffer(5000, pool) as buffer:
        buffer[:] = b"x" * 5000
    with procaio.Buffer(5000, pool) as buffer:
        assert buffer[:] == bytes(5000)


@pytest.mark.parametrize("wrong", [-1, "1", None, 1.5, 2**70, 2**62])
def test_buffer_of_an_impossible_size_raises(pool: procaio.Pool, wrong: object) -> None:
    with pytest.raises((TypeError, ValueError, OverflowError, OSError)):
        procaio.Buffer(wrong, pool)
    with procaio.Buffer(0, pool) as empty:
        assert len(empty) == 0
