"""What Linux::AIO 0.01 has: its one example, and what its functions promise, in Python."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import procaio
from conftest import eventually
from test_reference_io_aio_3_71 import Loop

if TYPE_CHECKING:
    from pathlib import Path


def test_example_watcher_in_a_loop(fd: int) -> None:
    """A loop calls poll_cb when the descriptor is readable."""
    loop = Loop()
    loop.watch(procaio.poll_fileno(), procaio.poll_cb)
    blocks: list[bytes] = []

    def got(block: bytes) -> None:
        blocks.append(block)
        if len(blocks) == 4:
            loop.stop()

    for number in range(4):
        procaio.aio_read(fd, number * 4096, 4096, got)
    loop.run()
    assert set(blocks) == {os.pread(fd, 4096, number * 4096) for number in range(4)}


def test_nothing_has_to_be_set_before_the_first_request(fd: int) -> None:
    """There a request hangs until min_parallel was called; more workers may be asked for here."""
    assert procaio.aio_read(fd, 0, 16).wait(timeout=60) == os.pread(fd, 16, 0)
    assert procaio.min_parallel(4) == 8
    assert procaio.min_parallel(16) == 8
    assert procaio.min_parallel() == 16


def test_poll_tells_the_number_of_results(fd: int) -> None:
    """What poll_cb gives there; nreqs counts down with it."""
    requests = [procaio.aio_read(fd, 0, 16) for _ in range(5)]
    eventually(lambda: procaio.npending() == len(requests), "all are executed")
    assert procaio.nreqs() == 5
    assert procaio.poll() == 5
    assert procaio.nreqs() == 0


def test_open_read_write_close(tmp_path: Path) -> None:
    """All four functions that there are, one after the other, each in the callback of the last."""
    seen: list[object] = []
    data = bytearray(b"head")

    def opened(fh: procaio.FileHandle) -> None:
        procaio.aio_write(fh, 0, 5, b"hello world", 6, lambda count: written(fh, count))

    def written(fh: procaio.FileHandle, count: int) -> None:
        seen.append(count)
        procaio.aio_read(fh, 1, 100, data, 4, lambda count: read(fh, count))

    def read(fh: procaio.FileHandle, count: int) -> None:
        seen.append(count)
        procaio.aio_close(fh, seen.append)

    procaio.aio_open(tmp_path / "new", procaio.O_RDWR | procaio.O_CREAT, 0o600, opened)
    while procaio.nreqs():
        procaio.poll()
    assert (seen, data) == ([5, 4, 0], b"headorld")
    assert (tmp_path / "new").read_bytes() == b"world"


def test_failures_are_not_taken_for_counts(fd: int) -> None:
    """There they are undef; here -1, or None where bytes are expected. Zero is the end of file."""
    seen: list[object] = []

    def note(result: object) -> None:
        seen.append((result, procaio.errno()))

    procaio.aio_read(-1, 0, 10, bytearray(), note)
    procaio.flush()
    procaio.aio_read(-1, 0, 10, note)
    procaio.flush()
    procaio.aio_write(-1, 0, 1, b"x", note)
    procaio.flush()
    procaio.aio_read(fd, 65536, 10, bytearray(), note)
    procaio.flush()
    assert seen == [(-1, errno.EBADF), (None, errno.EBADF), (-1, errno.EBADF), (0, 0)]
