"""The examples of Linux::AIO 1.9, in Python."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

import procaio
from test_reference_io_aio_3_71 import Loop

if TYPE_CHECKING:
    from pathlib import Path


def test_example_watcher_in_a_loop(data_file: Path) -> None:
    """The descriptor becomes readable when there are results."""
    loop = Loop()
    loop.watch(procaio.poll_fileno(), procaio.poll_cb)
    procaio.aio_stat(data_file, lambda _: loop.stop())
    loop.run()
    assert procaio.nreqs() == 0


def test_example_wait_until_nothing_is_outstanding(data_file: Path) -> None:
    seen: list[int] = []
    for _ in range(20):
        procaio.aio_stat(data_file, lambda st: seen.append(st.st_size))
    while procaio.nreqs():
        procaio.poll_wait()
        procaio.poll_cb()
    assert len(seen) == 20


def test_example_open_and_make_a_file_object_of_it(data_file: Path) -> None:
    """The descriptor is handed over: one owner, closed once."""
    seen: list[bytes] = []

    def opened(fh: procaio.FileHandle | None) -> None:
        assert fh, os.strerror(procaio.errno())
        with os.fdopen(fh.detach(), "rb") as file:
            assert fh.closed
            seen.append(file.read())

    procaio.aio_open(data_file, procaio.O_RDONLY, 0, opened)
    procaio.flush()
    assert seen == [data_file.read_bytes()]


def test_open_gives_what_every_other_function_takes(data_file: Path) -> None:
    """There the descriptor that comes back fits nowhere; here the handle fits everywhere."""
    seen: list[object] = []

    def opened(fh: procaio.FileHandle) -> None:
        procaio.aio_stat(fh, lambda st: looked(fh, st))

    def looked(fh: procaio.FileHandle, st: os.stat_result) -> None:
        seen.append(st.st_size)
        procaio.aio_fsync(fh, lambda status: synced(fh, status))

    def synced(fh: procaio.FileHandle, status: int) -> None:
        seen.append(status)
        procaio.aio_close(fh, seen.append)

    procaio.aio_open(data_file, procaio.O_RDONLY, 0, opened)
    procaio.flush()
    assert seen == [65536, 0, 0]


def test_example_read_fifteen_bytes(fd: int) -> None:
    """From offset 7; a count that is not negative is no error."""
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


def test_unlink_gives_the_result_code(data_file: Path) -> None:
    seen: list[int] = []
    procaio.aio_unlink(data_file, seen.append)
    procaio.flush()
    procaio.aio_unlink(data_file, seen.append)
    procaio.flush()
    assert seen == [0, -1]


def test_workers_outlive_the_thread_that_started_them(data_file: Path) -> None:
    """There they end with it."""
    starter = threading.Thread(target=lambda: procaio.aio_stat(data_file).wait())
    starter.start()
    starter.join()
    before = {worker.pid for worker in procaio.statistics().workers}
    seen: list[int] = []
    procaio.aio_stat(data_file, lambda st: seen.append(st.st_size))
    procaio.flush()
    assert seen == [65536]
    assert before <= {worker.pid for worker in procaio.statistics().workers}
