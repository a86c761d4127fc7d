"""The synopsis and the examples of IO::AIO 0.3, in Python."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest

import procaio
from test_reference_io_aio_3_71 import Loop

if TYPE_CHECKING:
    from pathlib import Path


# -- synopsis --------------------------------------------------------------------------------------


def test_synopsis_open_and_unlink(data_file: Path) -> None:
    """Requests without a return value that anybody looks at; the callbacks get what came of it."""
    seen: list[object] = []

    def opened(fh: procaio.FileHandle) -> None:
        with fh:
            seen.append(os.fstat(fh.fileno()).st_size)
        procaio.aio_unlink(data_file, seen.append)

    procaio.aio_open(data_file, procaio.O_RDONLY, 0, opened)
    procaio.flush()
    assert (seen, data_file.exists()) == ([65536, 0], False)


def test_synopsis_read(fd: int) -> None:
    """A block from the middle of a file; more than none came."""
    buffer = bytearray()
    seen: list[int] = []
    procaio.aio_read(fd, 30000, 1024, buffer, 0, seen.append)
    procaio.flush()
    assert seen[0] > 0
    assert buffer == os.pread(fd, 1024, 30000)


def test_synopsis_watcher(data_file: Path) -> None:
    """The loop watches the descriptor, and everything else happens in callbacks."""
    loop = Loop()
    loop.watch(procaio.poll_fileno(), procaio.poll_cb)
    sizes: list[int] = []

    def looked(st: os.stat_result) -> None:
        sizes.append(st.st_size)
        if len(sizes) == 10:
            loop.stop()

    for _ in range(10):
        procaio.aio_stat(data_file, looked)
    loop.run()
    assert sizes == [65536] * 10


# -- functions -------------------------------------------------------------------------------------


def test_example_open_tells_why_it_failed(tmp_path: Path) -> None:
    seen: list[object] = []
    procaio.aio_open(
        tmp_path / "no", procaio.O_RDONLY, 0, lambda fh: seen.append((fh, procaio.errno()))
    )
    procaio.flush()
    assert seen == [(None, errno.ENOENT)]


def test_example_read_fifteen_bytes(fd: int) -> None:
    """From offset 7, to the beginning of a buffer."""
    buffer = bytearray()
    seen: list[tuple[int, bytes]] = []
    procaio.aio_read(fd, 7, 15, buffer, 0, lambda count: seen.append((count, bytes(buffer))))
    procaio.flush()
    assert seen == [(15, os.pread(fd, 15, 7))]


def test_example_size_of_a_file(data_file: Path) -> None:
    sizes: list[int] = []
    procaio.aio_stat(data_file, lambda st: sizes.append(st.st_size))
    procaio.flush()
    assert sizes == [65536]


def test_every_function_takes_a_bare_descriptor(fd: int) -> None:
    """A number does wherever a handle does."""
    seen: list[object] = []
    procaio.aio_write(fd, 0, 3, b"abc", 0, seen.append)
    procaio.flush()
    for function in (procaio.aio_fsync, procaio.aio_fdatasync):
        function(fd, seen.append)
    procaio.aio_readahead(fd, 0, 65536, seen.append)
    procaio.aio_stat(fd, lambda st: seen.append(st.st_size))
    procaio.aio_lstat(fd, lambda st: seen.append(st.st_size))
    procaio.flush()
    procaio.aio_close(os.dup(fd), seen.append)
    procaio.flush()
    assert sorted(seen, key=int) == [0, 0, 0, 0, 3, 65536, 65536]


def test_failed_calls_give_minus_one(tmp_path: Path) -> None:
    """As the system call does."""
    seen: list[object] = []
    procaio.aio_unlink(tmp_path / "no", lambda status: seen.append((status, procaio.errno())))
    procaio.aio_read(-1, 0, 1, bytearray(), lambda n: seen.append((n, procaio.errno())))
    procaio.flush()
    assert set(seen) == {(-1, errno.ENOENT), (-1, errno.EBADF)}


# -- waiting, and limits ---------------------------------------------------------------------------


def test_example_wait_until_nothing_is_outstanding(data_file: Path) -> None:
    seen: list[int] = []
    for _ in range(20):
        procaio.aio_stat(data_file, lambda st: seen.append(st.st_size))
    while procaio.nreqs():
        procaio.poll_wait()
        procaio.poll_cb()
    assert len(seen) == 20


def test_poll_wait_without_requests_returns() -> None:
    """There it would wait for ever."""
    procaio.poll_wait()
    assert procaio.nreqs() == 0


@pytest.mark.parametrize("limit", [1, 100])
def test_loop_that_limits_itself(data_file: Path, limit: int) -> None:
    """Making a request does not block here: whoever wants to be held back polls."""
    seen: list[int] = []
    most = 0
    for _ in range(300):
        while procaio.nreqs() >= limit:
            procaio.poll()
        procaio.aio_stat(data_file, lambda st: seen.append(st.st_size))
        most = max(most, procaio.nreqs())
    procaio.flush()
    assert (len(seen), most <= limit) == (300, True)


def test_max_outstanding_gives_the_old_value_and_holds_poll_cb_back(data_file: Path) -> None:
    """One poll_cb brings the number of requests down to the limit."""
    assert procaio.max_outstanding(5) == 0
    for _ in range(50):
        procaio.aio_stat(data_file)
    assert procaio.nreqs() == 50
    procaio.poll_cb()
    assert procaio.nreqs() <= 5
    assert procaio.max_outstanding(0) == 5
    procaio.flush()
