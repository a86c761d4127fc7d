"""fcntl, ioctl, rename2 and syncfs: what the system does for the program, done by a worker."""

from __future__ import annotations

import array
import ctypes
import errno
import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
import textwrap
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import procaio
from procaio import testing
from programs import run_python

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

RENAME_NOREPLACE, RENAME_EXCHANGE = 1, 2
FLOCK = "hhqqi4x"


def lock_seen_by_another(path: Path) -> int:
    """The type of lock that keeps another program from locking the first ten bytes."""
    program = f"""
        import fcntl, os, struct, sys
        fd = os.open(sys.argv[1], os.O_RDWR)
        ask = struct.pack({FLOCK!r}, fcntl.F_WRLCK, 0, 0, 10, 0)
        print(struct.unpack({FLOCK!r}, fcntl.fcntl(fd, fcntl.F_GETLK, ask))[0])
    """
    return int(run_python(program, path))


# -- fcntl -----------------------------------------------------------------------------------------


def test_fcntl_with_a_number_returns_one(pool: procaio.Pool, fd: int) -> None:
    """As fcntl.fcntl does: flags, duplicates, and 0 where nothing is given."""
    answers: list[object] = []
    request = procaio.aio_fcntl(fd, fcntl.F_GETFL, answers.append, pool=pool)
    assert request.wait() == fcntl.fcntl(fd, fcntl.F_GETFL)
    assert answers == [request.result]
    assert procaio.aio_fcntl(fd, fcntl.F_SETFL, os.O_APPEND, pool=pool).wait() == 0
    assert fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_APPEND
    copy = procaio.aio_fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 100, pool=pool).wait()
    assert isinstance(copy, int)
    assert copy >= 100
    assert os.path.sameopenfile(copy, fd)
    os.close(copy)


def test_fcntl_with_bytes_returns_those_that_came_back(pool: procaio.Pool, fd: int) -> None:
    ask = struct.pack(FLOCK, fcntl.F_WRLCK, 0, 5, 10, 77)
    got = procaio.aio_fcntl(fd, fcntl.F_GETLK, ask, pool=pool).wait()
    assert got == fcntl.fcntl(fd, fcntl.F_GETLK, ask)
    assert ask == struct.pack(FLOCK, fcntl.F_WRLCK, 0, 5, 10, 77)


def test_fcntl_locks_are_the_programs_own(workers: procaio.Pool, data_file: Path, fd: int) -> None:
    """They outlive the worker, keep others out, and neither the program nor its other workers."""
    lock = struct.pack(FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 10, 0)
    assert procaio.aio_fcntl(fd, fcntl.F_SETLK, lock, pool=workers).wait() == lock
    assert lock_seen_by_another(data_file) == fcntl.F_WRLCK
    for pid in [worker.pid for worker in workers.statistics().workers]:
        os.kill(pid, 9)
    procaio.aio_nop(pool=workers).wait()
    assert lock_seen_by_another(data_file) == fcntl.F_WRLCK
    fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 10)
    with procaio.Pool() as other:
        assert procaio.aio_fcntl(fd, fcntl.F_SETLK, lock, pool=other).wait() == lock
        unlock = struct.pack(FLOCK, fcntl.F_UNLCK, os.SEEK_SET, 0, 10, 0)
        assert procaio.aio_fcntl(fd, fcntl.F_SETLK, unlock, pool=other).wait() == unlock
    assert lock_seen_by_another(data_file) == fcntl.F_UNLCK


def test_fcntl_waits_for_the_lock_of_another_program(
    workers: procaio.Pool, data_file: Path, fd: int
) -> None:
    """F_SETLKW in a worker leaves the program free; F_SETLK says EAGAIN or EACCES."""
    program = """
        import fcntl, os, sys
        fd = os.open(sys.argv[1], os.O_RDWR)
        fcntl.lockf(fd, fcntl.LOCK_EX)
        print("locked", flush=True)
        sys.stdin.read()
    """
    lock = struct.pack(FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 10, 0)
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program), str(data_file)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as other:
        assert other.stdout
        assert other.stdin
        assert other.stdout.readline() == b"locked\n"
        answers: list[object] = []
        refused = procaio.aio_fcntl(fd, fcntl.F_SETLK, lock, answers.append, pool=workers)
        with pytest.raises(OSError) as caught:
            refused.wait()
        assert caught.value.errno in {errno.EAGAIN, errno.EACCES}
        assert answers == [None]
        waiting = procaio.aio_fcntl(fd, fcntl.F_SETLKW, lock, pool=workers)
        with pytest.raises(TimeoutError):
            waiting.wait(timeout=0.05)
        other.stdin.close()
        assert waiting.wait(timeout=30) == lock
    assert lock_seen_by_another(data_file) == fcntl.F_WRLCK


# -- ioctl -----------------------------------------------------------------------------------------


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """A pipe in which five bytes wait."""
    reading, writing = os.pipe()
    os.write(writing, b"12345")
    yield reading, writing
    os.close(reading)
    os.close(writing)


def buffers(pool: procaio.Pool) -> list[Any]:
    """Four writable bytes, of every kind."""
    return [
        bytearray(4),
        memoryview(bytearray(12))[4:8],
        array.array("i", [0]),
        np.zeros(4, np.uint8),
        np.zeros((2, 2), np.uint8),
        ctypes.c_int(0),
        procaio.Buffer(4, pool=pool),
        memoryview(procaio.Buffer(12, pool=pool))[4:8],
    ]


def test_ioctl_with_a_buffer_changes_it_in_place(pool: procaio.Pool, pipe: tuple[int, int]) -> None:
    """The result is the call's; the buffer holds the five that FIONREAD counts."""
    for buffer in buffers(pool):
        assert procaio.aio_ioctl(pipe[0], termios.FIONREAD, buffer, pool=pool).wait() == 0
        assert bytes(memoryview(buffer).cast("B")) == struct.pack("i", 5), buffer
    assert pool._snapshot()["shared_used"] < 64 << 10


def test_ioctl_with_bytes_returns_those_that_came_back(
    pool: procaio.Pool, pipe: tuple[int, int]
) -> None:
    answers: list[object] = []
    given = bytes(4)
    request = procaio.aio_ioctl(pipe[0], termios.FIONREAD, given, answers.append, pool=pool)
    assert request.wait() == struct.pack("i", 5)
    assert answers == [struct.pack("i", 5)]
    assert given == bytes(4)


def test_ioctl_with_a_number(pool: procaio.Pool, fd: int) -> None:
    """And without one, which is 0; numpy's numbers are numbers."""
    assert procaio.aio_ioctl(fd, termios.FIOCLEX, pool=pool).wait() == 0
    for number in (0, 1, True, np.int64(5), -1, 2**63 - 1):
        assert procaio.aio_ioctl(fd, termios.FIONCLEX, number, pool=pool).wait() == 0
        assert os.get_inheritable(fd)
        assert procaio.aio_ioctl(fd, termios.FIOCLEX, number, pool=pool).wait() == 0
        assert not os.get_inheritable(fd)


def test_ioctl_of_a_terminal(pool: procaio.Pool) -> None:
    """What goes in and what comes out, beside fcntl.ioctl."""
    master, slave = pty.openpty()
    size = struct.pack("HHHH", 24, 80, 0, 0)
    procaio.aio_ioctl(slave, termios.TIOCSWINSZ, size, pool=pool).wait()
    assert fcntl.ioctl(slave, termios.TIOCGWINSZ, bytes(8)) == size
    assert procaio.aio_ioctl(slave, termios.TIOCGWINSZ, bytes(8), pool=pool).wait() == size
    os.close(master)
    os.close(slave)


@pytest.mark.parametrize("size", [0, 1, 3, 7, 4095, 4096, 65536])
def test_ioctl_that_writes_more_than_it_was_given_harms_nobody(
    pool: procaio.Pool, size: int
) -> None:
    """What does not fit is lost; what lies beside it in shared memory stays as it is."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, b"\1" * 8)
    kept = [procaio.Buffer(4096, pool=pool) for _ in range(64)]
    for buffer in kept[::2]:
        buffer.release()
    for buffer in kept[1::2]:
        memoryview(buffer)[:] = b"\xa5" * 4096
    got = procaio.aio_ioctl(slave, termios.TIOCGWINSZ, bytes(size), pool=pool).wait()
    if size:
        assert got == (b"\1" * 8 + bytes(size))[:size]
    mutable = bytearray(size)
    procaio.aio_ioctl(slave, termios.TIOCGWINSZ, mutable, pool=pool).wait()
    assert len(mutable) == size
    assert all(bytes(buffer) == b"\xa5" * 4096 for buffer in kept[1::2])
    for buffer in kept[1::2]:
        buffer.release()
    os.close(master)
    os.close(slave)


def test_ioctl_reads_zeros_behind_a_short_argument(pool: procaio.Pool) -> None:
    """And not what some earlier request has left in shared memory."""
    for _ in range(8):
        procaio.aio_write(-1, 0, None, b"\xff" * 65536, pool=pool)
        pool.flush()
    master, slave = pty.openpty()
    procaio.aio_ioctl(slave, termios.TIOCSWINSZ, b"\2\2", pool=pool).wait()
    assert fcntl.ioctl(slave, termios.TIOCGWINSZ, bytes(8)) == b"\2\2" + bytes(6)
    os.close(master)
    os.close(slave)


def test_ioctl_failure_leaves_the_buffer_as_it_was(pool: procaio.Pool, fd: int) -> None:
    """ENOTTY, as the system has it; the callback gets -1, or None where bytes were to come."""
    answers: list[object] = []
    buffer = bytearray(b"before")
    for argument in (buffer, b"bytes", 3):
        request = procaio.aio_ioctl(fd, termios.TIOCGWINSZ, argument, answers.append, pool=pool)
        with pytest.raises(OSError) as caught:
            request.wait()
        assert caught.value.errno == errno.ENOTTY
    assert answers == [-1, None, -1]
    assert buffer == b"before"
    buffer.clear()


def test_ioctl_holds_its_buffer_until_it_is_done(
    workers: procaio.Pool, pipe: tuple[int, int]
) -> None:
    """A bytearray cannot be resized meanwhile (C7), a Buffer that is released goes afterwards."""
    buffer, shared = bytearray(4), procaio.Buffer(4, pool=workers)
    requests = [procaio.aio_ioctl(pipe[0], termios.FIONREAD, b, pool=workers)
                for b in (buffer, shared)]  # fmt: skip
    with pytest.raises(BufferError):
        buffer.clear()
    shared.release()
    assert [request.wait() for request in requests] == [0, 0]
    buffer.clear()
    assert workers._snapshot()["shared_used"] == 0


@pytest.mark.parametrize("name", ["fcntl", "ioctl"])
def test_control_wrong_arguments_raise_in_the_call(pool: procaio.Pool, fd: int, name: str) -> None:
    """Nothing is queued, and nothing held (A5)."""
    function, data = getattr(procaio, f"aio_{name}"), bytearray(65537)
    for wrong in ("text", None, 1.5, [1], memoryview(b"read only"), memoryview(data)[::2],
                  np.zeros(4)[::2], object()):  # fmt: skip
        with pytest.raises((TypeError, ValueError)):
            function(fd, 1, wrong, pool=pool)
    for wrong in (2**63, 2**64, -(2**63) - 1, data, bytes(65537)):
        with pytest.raises(ValueError):
            function(fd, 1, wrong, pool=pool)
    for wrong in ("1", None, 1.5, 2**32, -(2**31) - 1):
        with pytest.raises((TypeError, ValueError)):
            function(fd, wrong, 0, pool=pool)
    released = procaio.Buffer(8, pool=pool)
    released.release()
    with pytest.raises(ValueError):
        function(fd, 1, released, pool=pool)
    with pytest.raises(TypeError):
        function("path", 1, 0, pool=pool)
    assert (pool._snapshot()["shared_used"], pool.statistics().submitted) == (0, 0)


@pytest.mark.parametrize("point", [p for p in testing.FAULT_POINTS if p != "sleeping"])
def test_control_worker_dies(workers: procaio.Pool, fd: int, point: str) -> None:
    """It is not repeated once it has begun: nobody knows what a second time would do."""
    testing.arm(workers, point)
    request = procaio.aio_fcntl(fd, fcntl.F_SETFL, os.O_APPEND, pool=workers)
    if point == "called":
        with pytest.raises(procaio.WorkerDied):
            request.wait()
    else:
        assert request.wait() == 0
    assert fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_APPEND


# -- rename2 ---------------------------------------------------------------------------------------


@pytest.fixture
def two(tmp_path: Path) -> Path:
    """A directory with the files a and b."""
    (tmp_path / "two").mkdir()
    for name in "ab":
        (tmp_path / "two" / name).write_text(name)
    return tmp_path / "two"


def contents(directory: Path) -> dict[str, str]:
    return {entry.name: entry.read_text() for entry in directory.iterdir() if entry.is_file()}


@pytest.mark.parametrize("form", [str, os.fsencode, lambda path: path])
def test_rename2_does_what_its_flags_say(
    pool: procaio.Pool, two: Path, form: Callable[[Path], Any]
) -> None:
    """Replace, swap, or refuse to replace."""
    a, b, c = (form(two / name) for name in "abc")
    assert procaio.aio_rename2(a, b, RENAME_EXCHANGE, pool=pool).wait() == 0
    assert contents(two) == {"a": "b", "b": "a"}
    answers: list[object] = []
    with pytest.raises(FileExistsError) as caught:
        procaio.aio_rename2(a, b, RENAME_NOREPLACE, answers.append, pool=pool).wait()
    assert (caught.value.filename, caught.value.filename2) == (a, b)
    assert answers == [-1]
    assert contents(two) == {"a": "b", "b": "a"}
    assert procaio.aio_rename2(a, c, RENAME_NOREPLACE, pool=pool).wait() == 0
    assert procaio.aio_rename2(c, b, 0, pool=pool).wait() == 0
    assert contents(two) == {"b": "b"}


def test_rename2_in_directories_and_with_long_names(pool: procaio.Pool, two: Path) -> None:
    """src_dir_fd and dst_dir_fd as in os.rename."""
    (two / "inner").mkdir()
    outer, inner = os.open(two, os.O_RDONLY), os.open(two / "inner", os.O_RDONLY)
    long = "./" * 300
    procaio.aio_rename2(
        f"{long}a", f"{long}moved", 1, src_dir_fd=outer, dst_dir_fd=inner, pool=pool
    ).wait()
    assert contents(two / "inner") == {"moved": "a"}
    os.close(outer)
    os.close(inner)


def test_rename2_errors(pool: procaio.Pool, two: Path) -> None:
    """EINVAL for flags that nobody knows, ENOENT for swapping with nothing; wrong types raise."""
    for source, target, flags, number in (
        ("a", "b", RENAME_NOREPLACE | RENAME_EXCHANGE, errno.EINVAL),
        ("a", "b", 1 << 20, errno.EINVAL),
        ("a", "no", RENAME_EXCHANGE, errno.ENOENT),
        ("no", "b", RENAME_NOREPLACE, errno.ENOENT),
        ("a", "b/x", 0, errno.ENOTDIR),
    ):
        with pytest.raises(OSError) as caught:
            procaio.aio_rename2(two / source, two / target, flags, pool=pool).wait()
        assert caught.value.errno == number
        assert (caught.value.filename, caught.value.filename2) == (two / source, two / target)
    assert contents(two) == {"a": "a", "b": "b"}
    before = pool.statistics().submitted
    for wrong in ("1", None, 1.5):
        with pytest.raises(TypeError):
            procaio.aio_rename2("a", "b", wrong, pool=pool)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        procaio.aio_rename2("a", 3, 0, pool=pool)  # type: ignore[arg-type]
    with pytest.raises(ValueError):
        procaio.aio_rename2("a", "b\0", 0, pool=pool)
    assert pool.statistics().submitted == before


@pytest.mark.parametrize("point", [p for p in testing.FAULT_POINTS if p != "sleeping"])
def test_rename2_worker_dies_and_nothing_is_swapped_twice(
    workers: procaio.Pool, two: Path, point: str
) -> None:
    testing.arm(workers, point)
    request = procaio.aio_rename2(two / "a", two / "b", RENAME_EXCHANGE, pool=workers)
    if point == "called":
        with pytest.raises(procaio.WorkerDied):
            request.wait()
    else:
        assert request.wait() == 0
    assert contents(two) == {"a": "b", "b": "a"}


# -- syncfs ----------------------------------------------------------------------------------------


def test_syncfs(pool: procaio.Pool, fd: int, tmp_path: Path) -> None:
    """Of anything open in the file system; -1 and EBADF for what is not open."""
    assert procaio.aio_syncfs(fd, pool=pool).wait() == 0
    with open(tmp_path / "data", "rb") as file:
        assert procaio.aio_syncfs(file, pool=pool).wait() == 0
    directory = os.open(tmp_path, os.O_RDONLY)
    assert procaio.aio_syncfs(directory, pool=pool).wait() == 0
    os.close(directory)
    answers: list[object] = []
    with pytest.raises(OSError) as caught:
        procaio.aio_syncfs(-1, answers.append, pool=pool).wait()
    assert (caught.value.errno, answers) == (errno.EBADF, [-1])
