"""Sendfile: positions, counts, and what the system cannot do by itself (rules E1 to E5)."""

from __future__ import annotations

import errno
import os
import socket
import tempfile
import threading
from typing import TYPE_CHECKING

import pytest

import procaio
from conftest import errno_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from io import FileIO
    from pathlib import Path

MEBIBYTE = 1 << 20


@pytest.fixture
def out(tmp_path: Path) -> Iterator[int]:
    """An empty file to write to, and to look into."""
    number = os.open(tmp_path / "out", os.O_RDWR | os.O_CREAT)
    yield number
    os.close(number)


@pytest.fixture
def appending(tmp_path: Path, out: int) -> Iterator[int]:
    """The same file, appended to: the system refuses to send there, so the data are copied."""
    number = os.open(tmp_path / "out", os.O_WRONLY | os.O_APPEND)
    yield number
    os.close(number)


@pytest.fixture
def pipe() -> Iterator[tuple[FileIO, FileIO]]:
    """Both ends; a test may close them."""
    reader, writer = os.pipe()
    with open(reader, "rb", buffering=0) as end, open(writer, "wb", buffering=0) as start:
        yield end, start


@pytest.fixture
def sockets() -> Iterator[tuple[socket.socket, socket.socket]]:
    one, other = socket.socketpair()
    with one, other:
        yield one, other


def drain(end: socket.socket) -> bytes:
    """Read to the end of the stream."""
    parts = []
    while part := end.recv(MEBIBYTE):
        parts.append(part)
    return b"".join(parts)


# -- positions -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["sent", "copied"])
def test_sendfile_reads_at_the_offset_and_writes_at_the_position(
    pool: procaio.Pool, fd: int, out: int, appending: int, kind: str
) -> None:
    """The position of what is read from stays, that of what is written to moves (E1)."""
    os.write(out, b"head")
    target = out if kind == "sent" else appending
    os.lseek(target, 4, os.SEEK_SET)
    os.lseek(fd, 5, os.SEEK_SET)
    assert procaio.aio_sendfile(target, fd, 1000, 50_000, pool=pool).wait() == 50_000
    assert os.lseek(fd, 0, os.SEEK_CUR) == 5
    assert os.lseek(target, 0, os.SEEK_CUR) == 50_004
    assert os.pread(out, 99_999, 0) == b"head" + os.pread(fd, 50_000, 1000)


@pytest.mark.parametrize("kind", ["sent", "copied"])
def test_sendfile_without_an_offset_reads_at_the_position_and_moves_it(
    pool: procaio.Pool, fd: int, out: int, appending: int, kind: str
) -> None:
    """None is the descriptor's own position, as everywhere (C5)."""
    os.lseek(fd, 10, os.SEEK_SET)
    target = out if kind == "sent" else appending
    for _ in range(2):
        assert procaio.aio_sendfile(target, fd, None, 25_000, pool=pool).wait() == 25_000
    assert os.lseek(fd, 0, os.SEEK_CUR) == 50_010
    assert os.pread(out, 99_999, 0) == os.pread(fd, 50_000, 10)


def test_sendfile_takes_handles_and_file_objects(
    pool: procaio.Pool, data_file: Path, tmp_path: Path
) -> None:
    """Anything with fileno() can be sent from and to, and is kept open until it is done (A9)."""
    with open(tmp_path / "out", "wb") as out:
        handle = procaio.aio_open(data_file, pool=pool).wait()
        assert procaio.aio_sendfile(out, handle, 16, 32, pool=pool).wait() == 32
        handle.close()
    assert (tmp_path / "out").read_bytes() == data_file.read_bytes()[16:48]


def test_sendfile_keeps_both_file_objects_open_until_it_is_done(
    workers: procaio.Pool, data_file: Path, tmp_path: Path
) -> None:
    """They may be forgotten at once (A9)."""
    workers.max_parallel(0)
    data, out = open(data_file, "rb", buffering=0), open(tmp_path / "out", "wb", buffering=0)  # noqa: SIM115
    request = procaio.aio_sendfile(out, data, 0, 100, pool=workers)
    del data, out
    workers.max_parallel(8)
    workers.min_parallel(1)
    with pytest.warns(ResourceWarning, match="unclosed file"):
        assert request.wait() == 100
    assert (tmp_path / "out").read_bytes() == data_file.read_bytes()[:100]


# -- counts ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["sent", "copied"])
@pytest.mark.parametrize(
    ("offset", "length", "count"),
    [(65_530, 100, 6), (65_536, 100, 0), (1 << 40, 100, 0), (0, 1 << 40, 65_536)],
)
def test_sendfile_ends_at_the_end_of_the_file(  # noqa: PLR0917 - a table
    pool: procaio.Pool, fd: int, out: int, appending: int, kind: str,
    offset: int, length: int, count: int,
) -> None:  # fmt: skip
    """The result counts what was written (E1)."""
    target = out if kind == "sent" else appending
    assert procaio.aio_sendfile(target, fd, offset, length, pool=pool).wait() == count
    assert os.pread(out, 99_999, 0) == (os.pread(fd, count, offset) if count else b"")


def test_sendfile_of_nothing_gives_nothing(pool: procaio.Pool, fd: int, out: int) -> None:
    """Length 0 gives 0, and nothing is looked at: whatever the descriptors are (E4)."""
    for pair in ((out, fd), (fd, out), (-1, fd), (out, -1), (-1, -1)):
        for offset in (0, None, 2**63 - 1):
            assert procaio.aio_sendfile(*pair, offset, 0, pool=pool).wait() == 0
    assert os.fstat(out).st_size == 0


@pytest.mark.parametrize("kind", ["sent", "copied"])
def test_sendfile_of_more_than_2_gib_copies_all(pool: procaio.Pool, kind: str) -> None:
    """One call of the system copies less than 2 GiB; a request does not stop there (E5)."""
    length = (2 << 30) + 12_345
    flags = os.O_WRONLY | (os.O_APPEND if kind == "copied" else 0)
    with tempfile.TemporaryFile(dir="/dev/shm") as sparse:
        sparse.truncate(length + 77)
        sink = os.open("/dev/null", flags)
        request = procaio.aio_sendfile(sink, sparse, 77, length + 1, pool=pool)
        assert request.wait() == length
        os.close(sink)


# -- what the system refuses -----------------------------------------------------------------------


def test_sendfile_into_a_pipe(workers: procaio.Pool, fd: int, pipe: tuple[FileIO, FileIO]) -> None:
    """More than a pipe holds: it waits for the reader, and all of it arrives (E3)."""
    reader, writer = pipe
    os.ftruncate(fd, 3 * MEBIBYTE)
    request = procaio.aio_sendfile(writer, fd, 7, 3 * MEBIBYTE, pool=workers)
    got = b""
    while len(got) < 3 * MEBIBYTE - 7:
        got += reader.read(MEBIBYTE)
    assert request.wait() == len(got)
    assert got == os.pread(fd, 3 * MEBIBYTE, 7)


def test_sendfile_from_a_pipe_is_copied(
    pool: procaio.Pool, out: int, pipe: tuple[FileIO, FileIO]
) -> None:
    """A pipe has no offset: None reads what comes, to the end of it (E3)."""
    reader, writer = pipe
    writer.write(b"first")
    writer.write(b"second")
    writer.close()
    assert procaio.aio_sendfile(out, reader, None, 7, pool=pool).wait() == 7
    assert procaio.aio_sendfile(out, reader, None, 99, pool=pool).wait() == 4
    assert procaio.aio_sendfile(out, reader, None, 99, pool=pool).wait() == 0
    assert os.pread(out, 99, 0) == b"firstsecond"


def test_sendfile_from_a_pipe_at_an_offset_fails(
    pool: procaio.Pool, out: int, pipe: tuple[FileIO, FileIO]
) -> None:
    reader, writer = pipe
    writer.write(b"data")
    request = procaio.aio_sendfile(out, reader, 0, 4, pool=pool)
    assert errno_of(request.wait) == errno.ESPIPE
    assert reader.read(9) == b"data"


def test_sendfile_between_pipes_is_copied(
    workers: procaio.Pool, pipe: tuple[FileIO, FileIO]
) -> None:
    reader, writer = pipe
    end, start = os.pipe()
    os.write(start, b"x" * 60_000)
    os.close(start)
    assert procaio.aio_sendfile(writer, end, None, 1 << 30, pool=workers).wait() == 60_000
    assert reader.read(99_999) == b"x" * 60_000
    os.close(end)


def test_sendfile_from_a_socket_is_copied(
    pool: procaio.Pool, out: int, sockets: tuple[socket.socket, socket.socket]
) -> None:
    one, other = sockets
    one.sendall(b"through")
    one.shutdown(socket.SHUT_WR)
    assert procaio.aio_sendfile(out, other, None, 99, pool=pool).wait() == 7
    assert os.pread(out, 99, 0) == b"through"


@pytest.mark.parametrize("name", ["/proc/self/status", "/proc/self/maps", "/sys/kernel/notes"])
def test_sendfile_of_files_of_the_system(pool: procaio.Pool, out: int, name: str) -> None:
    """Files that can only be read are read (E3)."""
    with open(name, "rb") as file:
        expected = file.read()
        count = procaio.aio_sendfile(out, file, 0, 4 * MEBIBYTE, pool=pool).wait()
    found = os.pread(out, 4 * MEBIBYTE, 0)
    assert len(found) == count
    if name.startswith("/sys"):
        assert found == expected
    else:  # they are made anew at every look
        assert found[:5] == expected[:5]
        assert count > 500


def test_sendfile_from_a_device_is_copied(pool: procaio.Pool, out: int) -> None:
    zero = os.open("/dev/zero", os.O_RDONLY)
    os.write(out, b"before")
    assert procaio.aio_sendfile(out, zero, None, 100_000, pool=pool).wait() == 100_000
    assert os.pread(out, 200_000, 0) == b"before" + bytes(100_000)
    os.close(zero)


def test_sendfile_copied_into_a_full_pipe_loses_nothing_that_was_read(
    workers: procaio.Pool, pipe: tuple[FileIO, FileIO]
) -> None:
    """What was read from a pipe cannot be read again, so it waits until there is room."""
    reader, writer = pipe
    end, start = os.pipe()
    os.set_blocking(writer.fileno(), False)
    while errno_of(lambda: os.write(writer.fileno(), b"o" * 4096)) == 0:
        pass
    os.write(start, b"kept")
    os.close(start)
    request = procaio.aio_sendfile(writer, end, None, 4, pool=workers)
    got = b""
    while not got.endswith(b"kept"):
        got += reader.read(MEBIBYTE)
    assert request.wait() == 4
    os.close(end)


# -- sockets ---------------------------------------------------------------------------------------


def test_sendfile_to_a_socket_sends_all(
    pool: procaio.Pool, fd: int, sockets: tuple[socket.socket, socket.socket]
) -> None:
    """A blocking socket takes it all, as fast as it is read."""
    one, other = sockets
    data = os.urandom(5 * MEBIBYTE)
    os.pwrite(fd, data, 0)
    received: list[bytes] = []
    thread = threading.Thread(target=lambda: received.append(drain(other)))
    thread.start()
    assert procaio.aio_sendfile(one, fd, 3, len(data), pool=pool).wait() == len(data) - 3
    one.shutdown(socket.SHUT_WR)
    thread.join()
    assert received == [data[3:]]


def test_sendfile_to_a_non_blocking_socket_sends_a_part_and_then_says_eagain(
    pool: procaio.Pool, fd: int, sockets: tuple[socket.socket, socket.socket]
) -> None:
    """What it takes counts; if it takes nothing, that is an error; later it goes on (E3)."""
    one, other = sockets
    one.setblocking(False)
    data = os.urandom(2 * MEBIBYTE)
    os.pwrite(fd, data, 0)
    received, sent, refusals = b"", 0, 0
    while sent < len(data):
        try:
            count = procaio.aio_sendfile(one, fd, sent, len(data) - sent, pool=pool).wait()
        except BlockingIOError:
            refusals += 1
            received += other.recv(sent - len(received), socket.MSG_WAITALL)
            continue
        assert count > 0
        sent += count
    received += other.recv(sent - len(received), socket.MSG_WAITALL)
    assert received == data
    assert refusals > 2


def test_sendfile_to_a_closed_socket_is_an_error_not_a_death(
    workers: procaio.Pool, fd: int, sockets: tuple[socket.socket, socket.socket]
) -> None:
    """EPIPE, whatever SIGPIPE does to other programs."""
    one, other = sockets
    other.close()
    assert errno_of(procaio.aio_sendfile(one, fd, 0, 9, pool=workers).wait) == errno.EPIPE
    assert workers.statistics().worker_deaths == 0


# -- errors ----------------------------------------------------------------------------------------


def test_sendfile_fails_like_that_of_os(
    pool: procaio.Pool, data_file: Path, tmp_path: Path
) -> None:
    """Descriptors that are not open, or not for that: the errno of os.sendfile."""
    reading = os.open(data_file, os.O_RDONLY)
    writing = os.open(tmp_path / "out", os.O_WRONLY | os.O_CREAT)
    for pair in ((-1, reading), (writing, -1), (reading, reading), (writing, writing)):
        expected = errno_of(lambda pair=pair: os.sendfile(*pair, 0, 9))
        assert expected == errno.EBADF
        answers: list[int] = []
        request = procaio.aio_sendfile(*pair, 0, 9, answers.append, pool=pool)
        pool.flush()
        assert (request.errno, answers) == (expected, [-1])
        assert request.error is not None
        assert request.error.filename is None
    os.close(reading)
    os.close(writing)


def test_sendfile_error_names_the_file_that_is_written(pool: procaio.Pool, data_file: Path) -> None:
    with procaio.aio_open(data_file, pool=pool).wait() as handle:
        with pytest.raises(OSError) as raised:
            procaio.aio_sendfile(handle, handle.fileno(), 0, 9, pool=pool).wait()
        assert raised.value.filename is data_file


def test_sendfile_of_a_directory_fails(pool: procaio.Pool, out: int, tmp_path: Path) -> None:
    with procaio.aio_open(tmp_path, os.O_DIRECTORY, pool=pool).wait() as directory:
        request = procaio.aio_sendfile(out, directory, 0, 9, pool=pool)
        assert errno_of(request.wait) == errno.EISDIR


def test_sendfile_into_a_full_device_fails(pool: procaio.Pool, fd: int) -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    assert errno_of(procaio.aio_sendfile(full, fd, 0, 9, pool=pool).wait) == errno.ENOSPC
    os.close(full)
