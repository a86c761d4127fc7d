"""Files: open, read, write, sync, close, and the FileHandle (rules C5 to C8, D2)."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import resource
import signal
import socket
import stat
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

import procaio
from conftest import descriptors, eventually, kill

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Gate


def block(number: int) -> bytes:
    """The block of 16 bytes that the data file has there."""
    return number.to_bytes(16, "big")


# -- open ------------------------------------------------------------------------------------------


def test_open_yields_a_handle_that_reads(pool: procaio.Pool, data_file: Path) -> None:
    """Usable by procaio, by os, and as a context manager; it knows the path it was opened with."""
    with procaio.aio_open(data_file, pool=pool).wait() as handle:
        assert isinstance(handle, procaio.FileHandle)
        assert (handle.name, handle.closed) == (data_file, False)
        assert procaio.aio_read(handle, 16, 16, pool=pool).wait() == block(1)
        assert os.pread(handle.fileno(), 16, 32) == block(2)
    assert handle.closed


def test_open_creates_with_mode_and_umask(pool: procaio.Pool, tmp_path: Path) -> None:
    """Default mode 0666, less the umask, as for open(2)."""
    mask = os.umask(0o026)
    try:
        for mode, expected in ((None, 0o640), (0o4777, 0o4751), (0, 0)):
            path = tmp_path / str(mode)
            flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY
            more = () if mode is None else (mode,)
            procaio.aio_open(path, flags, *more, pool=pool).wait().close()
            assert stat.S_IMODE(os.stat(path).st_mode) == expected
    finally:
        os.umask(mask)


@pytest.mark.parametrize(
    "flags",
    [os.O_RDONLY, os.O_WRONLY, os.O_RDWR, os.O_RDWR | os.O_APPEND, os.O_RDONLY | os.O_NONBLOCK,
     os.O_PATH, os.O_WRONLY | os.O_SYNC, os.O_RDONLY | os.O_NOATIME],
)  # fmt: skip
def test_open_sets_just_the_flags_that_were_given(
    pool: procaio.Pool, data_file: Path, flags: int
) -> None:
    """As os.open does, and never inherited. O_ASYNC is our mark; it does nothing."""
    expected = os.open(data_file, flags)
    with procaio.aio_open(data_file, flags, pool=pool).wait() as handle:
        ours = handle.fileno()
        found = fcntl.fcntl(ours, fcntl.F_GETFL) & ~os.O_ASYNC
        assert found == fcntl.fcntl(expected, fcntl.F_GETFL)
        assert not os.get_inheritable(ours)
    os.close(expected)


def test_open_descriptors_survive_the_death_of_a_worker(
    workers: procaio.Pool, data_file: Path, tmp_path: Path
) -> None:
    """What a worker that dies in open() may have left is closed, what the program has is not."""
    os.mkfifo(tmp_path / "fifo")
    mine, other = socket.socketpair()
    previous = signal.signal(signal.SIGIO, signal.SIG_IGN)
    fcntl.fcntl(mine, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(mine, fcntl.F_SETFL, os.O_ASYNC)  # the program's own, never our mark
    with procaio.aio_open(data_file, pool=workers).wait() as handle, mine, other:
        copy = os.dup(handle.fileno())
        stuck = procaio.aio_open(tmp_path / "fifo", pool=workers)
        eventually(lambda: stuck.state == "execute", "open waits for a writer")
        for worker in workers.statistics().workers:
            if worker.operation == "open":
                kill(worker.pid)
        with pytest.raises(procaio.WorkerDied):
            stuck.wait()
        procaio.aio_nop(pool=workers).wait()
        eventually(lambda: workers.poll_cb() == 0, "the dead one is buried")
        for number in (handle.fileno(), copy, mine.fileno()):
            os.fstat(number)
        os.close(copy)
    signal.signal(signal.SIGIO, previous)


def test_open_relative_to_a_directory(pool: procaio.Pool, data_file: Path) -> None:
    """dir_fd is a number, a FileHandle, or anything else with fileno()."""
    with procaio.aio_open(data_file.parent, os.O_DIRECTORY, pool=pool).wait() as directory:
        for dir_fd in (directory, directory.fileno()):
            procaio.aio_open(data_file.name, dir_fd=dir_fd, pool=pool).wait().close()
    procaio.aio_open(data_file, dir_fd=None, pool=pool).wait().close()


def test_open_of_a_fifo_waits_in_a_worker_only(workers: procaio.Pool, tmp_path: Path) -> None:
    """What blocks, blocks a worker; the other end lets it go."""
    os.mkfifo(tmp_path / "fifo")
    reader = procaio.aio_open(tmp_path / "fifo", pool=workers)
    writer = procaio.aio_open(tmp_path / "fifo", os.O_WRONLY, pool=workers)
    with reader.wait() as end, writer.wait() as other:
        assert procaio.aio_write(other, None, None, b"through", pool=workers).wait() == 7
        assert procaio.aio_read(end, None, 99, pool=workers).wait() == b"through"


@pytest.mark.parametrize(
    ("locale", "name"),
    [("C.UTF-8", "straße"), ("C.UTF-8", "half \udcc3"), ("C", "\udcc3\udcbc"), ("C", "plain")],
)
def test_names_are_encoded_as_those_of_os(tmp_path: Path, locale: str, name: str) -> None:
    """Also where the file system's encoding has few letters, or a name is no text at all."""
    program = """
import os, sys, procaio
directory, name = sys.argv[1], sys.argv[2]
os.mkdir(os.path.join(directory, name))
for path in (os.path.join(directory, name), os.fsencode(os.path.join(directory, name))):
    assert procaio.aio_stat(path).wait() == os.stat(path)
assert procaio.aio_readdir(directory).wait() == os.listdir(directory) == [name]
if sys.getfilesystemencoding() != "utf-8":
    try:
        procaio.aio_stat("stra\\u00dfe")
    except UnicodeEncodeError:
        print("refused")
"""
    environment = {**os.environ, "LC_ALL": locale, "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    done = subprocess.run(
        [sys.executable, "-c", program, tmp_path, os.fsencode(name)],
        env=environment, capture_output=True, timeout=100, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == (b"refused\n" if locale == "C" else b"")


# -- FileHandle ------------------------------------------------------------------------------------


def test_handle_that_is_closed_refuses_to_tell_its_descriptor(
    pool: procaio.Pool, data_file: Path
) -> None:
    """Closing twice does nothing; everything else is a ValueError then."""
    handle = procaio.aio_open(data_file, pool=pool).wait()
    assert f"fd={handle.fileno()}" in repr(handle)
    handle.close()
    handle.close()
    assert repr(handle) == f"<FileHandle {data_file!r} closed>"
    for use in (handle.fileno, handle.detach, handle.__enter__):
        with pytest.raises(ValueError, match="closed"):
            use()


def test_handle_gives_its_descriptor_up(pool: procaio.Pool, data_file: Path) -> None:
    """detach() neither closes nor warns: the descriptor is the caller's."""
    handle = procaio.aio_open(data_file, pool=pool).wait()
    number = handle.detach()
    assert handle.closed
    handle.close()
    assert os.pread(number, 16, 16) == block(1)
    os.close(number)


def test_handle_reports_what_close_reports(pool: procaio.Pool, data_file: Path) -> None:
    handle = procaio.aio_open(data_file, pool=pool).wait()
    os.close(handle.fileno())
    with pytest.raises(OSError) as raised:
        handle.close()
    assert (raised.value.errno, raised.value.filename) == (errno.EBADF, data_file)
    assert handle.closed


def test_handle_that_is_lost_warns_and_is_closed(pool: procaio.Pool, data_file: Path) -> None:
    """A ResourceWarning tells of it, as of a file object; the descriptor is not lost."""
    handle = procaio.aio_open(data_file, pool=pool).wait()
    number = handle.fileno()
    with pytest.warns(ResourceWarning, match="unclosed <FileHandle"):
        del handle
        # The request is gone with the statement that waited for it.
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(number)


# -- close -----------------------------------------------------------------------------------------


def test_close_of_a_descriptor_closes_it(pool: procaio.Pool, data_file: Path) -> None:
    number = os.open(data_file, os.O_RDONLY)
    assert procaio.aio_close(number, pool=pool).wait() == 0
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(number)
    assert procaio.aio_close(number, pool=pool).wait is not None
    pool.flush()


def test_close_of_a_handle_counts_at_once(pool: procaio.Pool, data_file: Path) -> None:
    """The handle is closed for the program from the call on; the worker does the slow part (D2)."""
    handle = procaio.aio_open(data_file, pool=pool).wait()
    number = handle.fileno()
    request = procaio.aio_close(handle, pool=pool)
    assert handle.closed
    handle.close()
    assert request.wait() == 0
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(number)


@pytest.mark.parametrize("kind", ["raw", "buffered", "text", "socket"])
def test_close_of_a_foreign_object_keeps_its_number_reserved(
    pool: procaio.Pool, data_file: Path, kind: str
) -> None:
    """What it has open is closed; reads give end of file, writes EBADF, until it is closed (D2)."""
    with contextlib.ExitStack() as stack:
        if kind == "socket":
            file, other = socket.socketpair()
            stack.enter_context(other)
        else:
            mode, buffering = {"raw": ("rb", 0), "buffered": ("rb", -1), "text": ("r", -1)}[kind]
            file = open(data_file, mode, buffering=buffering)  # noqa: SIM115
        stack.enter_context(file)
        number = file.fileno()
        assert procaio.aio_close(file, pool=pool).wait() == 0
        assert file.fileno() == number
        assert not stat.S_ISREG(os.fstat(number).st_mode)
        assert os.read(number, 1) == b""
        with pytest.raises(OSError, match="Bad file"):
            os.write(number, b"x")
        reused = os.open(data_file, os.O_RDONLY)
        os.close(reused)
        assert reused != number
        if kind == "socket":
            assert other.recv(1) == b""  # the connection is closed
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(number)


def test_close_of_many_leaves_no_descriptor(pool: procaio.Pool, data_file: Path) -> None:
    before = descriptors()
    opens = [procaio.aio_open(data_file, pool=pool) for _ in range(100)]
    closes = [procaio.aio_close(request.wait(), pool=pool) for request in opens]
    pool.flush()
    assert {request.result for request in closes} == {0}
    assert set(descriptors().items()) - set(before.items()) <= {
        (number, what) for number, what in descriptors().items() if "data" not in what
    }


# -- position and offset ---------------------------------------------------------------------------


def test_offset_leaves_the_position_alone(pool: procaio.Pool, fd: int) -> None:
    """An offset never moves the descriptor's position (C5)."""
    os.lseek(fd, 5, os.SEEK_SET)
    assert procaio.aio_read(fd, 32, 16, pool=pool).wait() == block(2)
    assert procaio.aio_write(fd, 0, None, b"front", pool=pool).wait() == 5
    assert os.lseek(fd, 0, os.SEEK_CUR) == 5
    assert os.pread(fd, 5, 0) == b"front"


def test_no_offset_uses_and_moves_the_position(pool: procaio.Pool, fd: int) -> None:
    """None is the descriptor's own position (C5)."""
    os.lseek(fd, 16, os.SEEK_SET)
    assert procaio.aio_read(fd, None, 16, pool=pool).wait() == block(1)
    assert procaio.aio_write(fd, None, None, b"after", pool=pool).wait() == 5
    assert os.lseek(fd, 0, os.SEEK_CUR) == 37
    assert os.pread(fd, 5, 32) == b"after"


def test_read_beyond_the_end_gives_nothing(pool: procaio.Pool, fd: int) -> None:
    """End of file is 0 bytes; a read across it is short (C8)."""
    assert procaio.aio_read(fd, 65536, 10, pool=pool).wait() == b""
    assert procaio.aio_read(fd, 2**63 - 1, 0, pool=pool).wait() == b""
    assert procaio.aio_read(fd, 65530, 10, pool=pool).wait() == block(4095)[-6:]
    assert procaio.aio_read(fd, 0, 0, pool=pool).wait() == b""


def test_read_of_a_pipe_returns_what_is_there(workers: procaio.Pool, gate: Gate) -> None:
    """Short counts are returned as they are (C8)."""
    request = procaio.aio_read(gate.fd, None, 1000, pool=workers)
    gate.open(3)
    data = request.wait()
    assert data
    assert set(data) == {ord("x")}
    os.set_blocking(gate.fd, False)
    with contextlib.suppress(BlockingIOError):
        os.read(gate.fd, 3)
    with pytest.raises(BlockingIOError):
        procaio.aio_read(gate.fd, None, 1, pool=workers).wait()
    with pytest.raises(OSError, match="Illegal seek"):
        procaio.aio_read(gate.fd, 0, 1, pool=workers).wait()


def test_write_takes_part_of_the_data(pool: procaio.Pool, fd: int) -> None:
    """Dataoffset and length choose; None is the rest (C3, C6)."""
    data = b"0123456789"
    for length, dataoffset, expected in (
        (3, 0, b"012"), (None, 7, b"789"), (2, -3, b"78"), (None, 10, b""), (0, 0, b""),
        (None, None, data), (1, -10, b"0"),
    ):  # fmt: skip
        os.ftruncate(fd, 0)
        request = procaio.aio_write(fd, 4, length, data, dataoffset, pool=pool)
        assert request.wait() == len(expected)
        assert os.pread(fd, 99, 0) == (bytes(4) + expected if expected else b"")


def test_write_appends_where_the_descriptor_says_so(pool: procaio.Pool, data_file: Path) -> None:
    """As pwrite(2) on Linux: O_APPEND wins over the offset."""
    with procaio.aio_open(data_file, os.O_WRONLY | os.O_APPEND, pool=pool).wait() as handle:
        assert procaio.aio_write(handle, 0, None, b"end", pool=pool).wait() == 3
    assert data_file.read_bytes()[-3:] == b"end"


def test_written_data_are_copied_in_the_call(workers: procaio.Pool, gate: Gate, fd: int) -> None:
    """The caller may reuse them at once; a bytearray is not held (A9)."""
    workers.max_parallel(1)
    held = gate.hold(workers)
    data = bytearray(b"before")
    request = procaio.aio_write(fd, 0, None, data, pool=workers)
    data[:] = b"behind, and longer"
    gate.open()
    assert request.wait() == 6
    assert os.pread(fd, 6, 0) == b"before"
    held[0].wait()


def test_write_into_a_hole_makes_a_sparse_file(pool: procaio.Pool, fd: int) -> None:
    """Offsets beyond 4 GiB are offsets like others."""
    far = 5 << 30
    assert procaio.aio_write(fd, far, None, b"far", pool=pool).wait() == 3
    assert procaio.aio_read(fd, far - 2, 9, pool=pool).wait() == b"\0\0far"
    status = os.fstat(fd)
    assert status.st_size == far + 3
    assert status.st_blocks * 512 < 1 << 20


def test_write_beyond_the_size_limit_is_an_error_not_a_death(
    workers: procaio.Pool, data_file: Path
) -> None:
    """EFBIG, whatever SIGXFSZ does to other programs (C8)."""
    procaio.Buffer(1, workers).release()  # shared memory is limited like files
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:  # the workers are born with the limit
        with procaio.aio_open(data_file, os.O_WRONLY, pool=workers).wait() as handle:
            request = procaio.aio_write(handle, 200_000, None, b"x", pool=workers)
            workers.flush()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert request.errno == errno.EFBIG
    assert workers.statistics().worker_deaths == 0


# -- sync ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("function", [procaio.aio_fsync, procaio.aio_fdatasync])
def test_sync_of_files_and_directories(pool: procaio.Pool, data_file: Path, function: type) -> None:
    """0, whether given a number, a handle or a file object; what cannot be synced is an error."""
    with open(data_file, "r+b") as file:
        assert function(file, pool=pool).wait() == 0
        assert function(file.fileno(), pool=pool).wait() == 0
    with procaio.aio_open(data_file.parent, pool=pool).wait() as directory:
        assert function(directory, pool=pool).wait() == 0
    one, other = os.pipe()
    with pytest.raises(OSError, match="Invalid argument"):
        function(one, pool=pool).wait()
    os.close(one)
    os.close(other)


def test_requests_on_standard_output_object(pool: procaio.Pool) -> None:
    """Anything with fileno() is a file."""

    class Anything:
        def fileno(self) -> int:
            return sys.__stderr__.fileno()

    assert procaio.aio_write(Anything(), None, None, b"", pool=pool).wait() == 0
