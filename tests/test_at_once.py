"""What cannot block is done at once, in the program; everything else goes to a worker as always."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Any

import pytest

import procaio

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from conftest import Gate


@pytest.fixture
def fresh() -> Iterator[procaio.Pool]:
    """A pool as it is made without any settings."""
    with procaio.Pool() as made:
        yield made


def test_cached_read_needs_no_worker(fresh: procaio.Pool, fd: int) -> None:
    """It is pending when the call returns, counts in nreqs, and ends in poll_cb (A1)."""
    seen: list[bytes] = []
    os.pread(fd, 4096, 8192)
    request = procaio.aio_read(fd, 8192, 4096, seen.append, pool=fresh)
    assert (request.state, request.result, seen) == ("pending", None, [])
    assert (fresh.nreqs(), fresh.npending(), fresh.nready()) == (1, 1, 0)
    assert fresh.poll_cb() == 0
    assert seen == [os.pread(fd, 4096, 8192)] == [request.result]
    assert (request.state, fresh.nreqs()) == ("done", 0)
    assert fresh.statistics().workers == ()


def test_cached_read_into_a_buffer_needs_no_copy_and_no_worker(
    fresh: procaio.Pool, fd: int
) -> None:
    with procaio.Buffer(8192, fresh) as buffer:
        assert procaio.aio_read(fd, 16, 100, buffer, 4000, pool=fresh).wait() == 100
        assert buffer[4000:4100] == os.pread(fd, 100, 16)
        assert buffer[:4000] + buffer[4100:] == bytes(8092)
    assert fresh.statistics().workers == ()


@pytest.mark.parametrize(
    ("offset", "length", "data"),
    [
        (None, 100, None),  # the position moves, and must not twice
        (0, 17 << 10, None),  # copying it takes longer than handing it over
        (65536 - 50, 100, None),  # the end of the file, or of what is in the cache?
        (65536, 10, None),
        (0, 100, bytearray(5)),  # changes when the request is done, not before
        (0, 0, None),
    ],
)
def test_other_reads_go_to_a_worker_with_the_same_result(
    fresh: procaio.Pool, fd: int, offset: int | None, length: int, data: Any
) -> None:
    request = procaio.aio_read(fd, offset, length, data, pool=fresh)
    expected = os.pread(fd, length, offset or 0)
    if data is None:
        assert request.wait() == expected
    else:
        assert request.wait() == len(expected)
        assert data == expected
    assert fresh.nworkers() > 0


def test_what_is_not_in_the_cache_goes_to_a_worker(fresh: procaio.Pool, fd: int) -> None:
    """The kernel refuses it, so nothing blocks."""
    os.fsync(fd)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    request = procaio.aio_read(fd, 32768, 4096, pool=fresh)
    assert request.wait() == os.pread(fd, 4096, 32768)
    if fresh.nworkers() == 0:
        pytest.skip("this file system keeps its pages")


def test_direct_reads_wait_for_the_disk_so_a_worker_does(
    fresh: procaio.Pool, data_file: Path
) -> None:
    """O_DIRECT goes past the cache."""
    try:
        fd = os.open(data_file, os.O_RDONLY | os.O_DIRECT)
    except OSError:
        pytest.skip("this file system knows no O_DIRECT")
    os.fsync(fd)  # or the kernel would have to write the pages first, and refuse
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    with procaio.Buffer(4096, fresh) as buffer:
        assert procaio.aio_read(fd, 4096, 4096, buffer, pool=fresh).wait() == 4096
        assert buffer[:] == data_file.read_bytes()[4096:8192]
    os.close(fd)
    assert fresh.nworkers() > 0


def test_failure_is_that_of_a_worker(fresh: procaio.Pool, tmp_path: Path) -> None:
    """With errno, and file name."""
    opening = procaio.aio_open(tmp_path / "w", os.O_WRONLY | os.O_CREAT, pool=fresh)
    with opening.wait() as handle, pytest.raises(OSError, match="Bad file descriptor") as raised:
        procaio.aio_read(handle, 0, 10, pool=fresh).wait()
    assert (raised.value.errno, raised.value.filename) == (errno.EBADF, tmp_path / "w")


@pytest.mark.parametrize("how", ["at first", "later"])
def test_it_can_be_switched_off(fd: int, how: str) -> None:
    with procaio.Pool(at_once=how != "at first") as pool:
        assert pool.at_once(False) is (how == "later")
        assert pool.at_once() is False
        procaio.aio_read(fd, 0, 10, pool=pool).wait()
        assert pool.nworkers() > 0
        assert pool.at_once(True) is False


def test_cancelled_after_it_was_done_calls_nothing(fresh: procaio.Pool, fd: int) -> None:
    """As one that a worker has executed (L1)."""
    seen: list[bytes] = []
    request = procaio.aio_read(fd, 0, 10, seen.append, pool=fresh)
    assert request.cancel() is False
    fresh.flush()
    assert (seen, request.state, request.result) == ([], "cancelled", None)


def test_nothing_runs_while_no_worker_is_allowed(fresh: procaio.Pool, fd: int) -> None:
    """O3: requests queue until the number is raised."""
    fresh.max_parallel(0)
    request = procaio.aio_read(fd, 0, 10, pool=fresh)
    assert request.state == "ready"
    fresh.min_parallel(1)
    assert request.wait() == os.pread(fd, 10, 0)


def test_one_worker_is_not_overtaken(fresh: procaio.Pool, fd: int, gate: Gate) -> None:
    """Whoever allows only one relies on the order."""
    fresh.max_parallel(1)
    gate.hold(fresh)
    write = procaio.aio_write(fd, 0, None, b"written first", pool=fresh)
    read = procaio.aio_read(fd, 0, 13, pool=fresh)
    assert (write.state, read.state) == ("ready", "ready")
    gate.open()
    assert read.wait() == b"written first"


@pytest.mark.parametrize(("pri", "state"), [(0, "ready"), (1, "pending"), (2, "pending")])
def test_higher_priorities_are_not_overtaken(fd: int, gate: Gate, pri: int, state: str) -> None:
    """B5: what waits with a higher one is begun first; a lower one is no reason to wait."""
    with procaio.Pool(workers=2) as pool:
        gate.hold(pool, 2)
        waiting = procaio.aio_nop(pool=pool, pri=1)
        read = procaio.aio_read(fd, 0, 10, pool=pool, pri=pri)
        assert (waiting.state, read.state) == ("ready", state)
        gate.open(2)


def test_with_many_outstanding_the_workers_share_the_work(fresh: procaio.Pool, fd: int) -> None:
    """And every result is right."""
    left = iter(range(20000))
    wrong: list[int] = []
    data = os.pread(fd, 65536, 0)

    def next_one() -> None:
        number = next(left, None)
        if number is not None:
            offset = number * 16 % 61440
            procaio.aio_read(
                fd,
                offset,
                4096,
                lambda got: (
                    (wrong.append(number) if got != data[offset : offset + 4096] else None)
                    or next_one()
                ),
                pool=fresh,
            )

    for _ in range(64):
        next_one()
    fresh.flush()
    assert wrong == []
    by_workers = sum(worker.taken for worker in fresh.statistics().workers)
    assert 0 < by_workers < 20000


def taken(pool: procaio.Pool) -> int:
    """How many requests workers have executed, or are executing."""
    return sum(worker.taken for worker in pool.statistics().workers)


def test_calls_that_hang_do_not_keep_others_from_being_done_at_once(
    fresh: procaio.Pool, fd: int, gate: Gate
) -> None:
    """Not even when no worker is left: they would have to wait for those that hang."""
    gate.hold(fresh, 8)
    for number in range(100):
        assert procaio.aio_read(fd, number, 10, pool=fresh).wait(20) == os.pread(fd, 10, number)
    assert taken(fresh) == 8
    gate.open(8)
