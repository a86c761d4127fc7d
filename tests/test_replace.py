"""
aio_replace: the old content or the new one, never anything else, whatever dies.

What can be left behind: with O_TMPFILE a file named .procaio-*, which holds all of the new content,
if the worker dies between the last two steps (it got a name, but has not taken the old one's
place). Without O_TMPFILE (test_replace_where_files_need_names) it has that name from the beginning.
"""

from __future__ import annotations

import errno
import os
import random
import re
import signal
import stat
import time
from typing import TYPE_CHECKING, Any

import pytest

import procaio
from conftest import descriptors, eventually, kill
from procaio import testing
from programs import FILTER, X86, run_python

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

OLD, NEW = b"old content", b"new content, which is longer"
LEFT = re.compile(r"\.procaio-[0-9a-v]{16}")
AT_POINTS = [point for point in testing.FAULT_POINTS if point != "sleeping"]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file alone in its directory."""
    (tmp_path / "alone").mkdir()
    (tmp_path / "alone" / "file").write_bytes(OLD)
    return tmp_path / "alone" / "file"


def left_beside(file: Path) -> list[bytes]:
    """The contents of temporary files."""
    names = set(os.listdir(file.parent)) - {file.name}
    assert all(LEFT.fullmatch(name) for name in names), names
    return [(file.parent / name).read_bytes() for name in names]


# -- what it does ----------------------------------------------------------------------------------


@pytest.mark.parametrize("form", [str, os.fsencode, lambda path: path])
def test_replace_gives_new_content(
    pool: procaio.Pool, file: Path, form: Callable[[Path], Any]
) -> None:
    """Of any size, from any buffer; the file need not exist."""
    buffer = procaio.Buffer(3000, pool=pool)
    memoryview(buffer)[:] = b"b" * 3000
    for data in (NEW, b"", b"x", bytearray(NEW), memoryview(NEW)[4:], buffer, os.urandom(10 << 20)):
        answers: list[object] = []
        request = procaio.aio_replace(form(file), data, callback=answers.append, pool=pool)
        assert request.wait() == 0
        assert answers == [0]
        assert file.read_bytes() == bytes(data)
        file.unlink()
        assert procaio.aio_replace(form(file), data, pool=pool).wait() == 0
        assert file.read_bytes() == bytes(data)
    assert left_beside(file) == []
    buffer.release()
    assert pool._snapshot()["shared_used"] == 0


def test_replace_of_a_long_path_carries_the_data_beside_it(pool: procaio.Pool, file: Path) -> None:
    """Path and data share a block; the longest path that the system takes works."""
    head = str(file.parent)
    for length in (100, 191, 192, 193, 1000, 4095):
        path = head + "/" * ((length - len(head)) % 2) + "/." * ((length - len(head) - 5) // 2)
        path += "/file"
        for data in (b"", NEW, os.urandom(100_000)):
            assert procaio.aio_replace(path, data, pool=pool).wait() == 0
            assert file.read_bytes() == data
    for path in (f"{head}/" + "./" * 2100 + "file", f"{head}/" + "./" * 9000 + "file"):
        with pytest.raises(OSError) as caught:
            procaio.aio_replace(path, NEW, pool=pool).wait()
        assert (caught.value.errno, caught.value.filename) == (errno.ENAMETOOLONG, path)
    assert left_beside(file) == []


def test_replace_copies_its_data_in_the_call(workers: procaio.Pool, file: Path) -> None:
    """What the program does with its memory afterwards changes nothing (A9)."""
    data = bytearray(NEW)
    request = procaio.aio_replace(file, data, pool=workers)
    data[:] = b"after"
    data.clear()
    request.wait()
    assert file.read_bytes() == NEW


def test_replace_takes_nothing_over_from_the_old_file(pool: procaio.Pool, file: Path) -> None:
    """A new file: permissions from `mode` and the umask, other names keep the old content."""
    os.link(file, file.parent / "other")
    file.chmod(0o444)
    for mask in (0o022, 0o077, 0):
        before = os.umask(mask)
        try:
            procaio.aio_replace(file, NEW, pool=pool).wait()
            assert stat.S_IMODE(file.stat().st_mode) == 0o666 & ~mask
            procaio.aio_replace(file, NEW, 0o755, pool=pool).wait()
            assert stat.S_IMODE(file.stat().st_mode) == 0o755 & ~mask
        finally:
            os.umask(before)
    assert (file.parent / "other").read_bytes() == OLD


def test_replace_of_a_symlink_replaces_the_link(pool: procaio.Pool, file: Path) -> None:
    link = file.parent / "link"
    link.symlink_to("file")
    procaio.aio_replace(link, NEW, pool=pool).wait()
    assert not link.is_symlink()
    assert (link.read_bytes(), file.read_bytes()) == (NEW, OLD)


def test_replace_names_are_looked_up_where_the_program_is(
    pool: procaio.Pool, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Relative ones in its working directory, or in dir_fd."""
    directory = os.open(file.parent, os.O_RDONLY)
    procaio.aio_replace("file", b"1", dir_fd=directory, pool=pool).wait()
    assert file.read_bytes() == b"1"
    procaio.aio_replace("../alone/file", b"2", dir_fd=directory, pool=pool).wait()
    assert file.read_bytes() == b"2"
    monkeypatch.chdir(file.parent)
    procaio.aio_replace("file", b"3", pool=pool).wait()
    assert file.read_bytes() == b"3"
    os.close(directory)


def test_replace_where_it_cannot_be_done_changes_nothing(pool: procaio.Pool, file: Path) -> None:
    """The error has its number and the name; nothing is left behind, and nothing open."""
    (file.parent / "inner").mkdir()
    for name, number in (
        ("inner", errno.EISDIR),
        ("inner/", errno.EISDIR),
        ("", errno.EISDIR),
        ("no/file", errno.ENOENT),
        ("file/x", errno.ENOTDIR),
        ("x" * 256, errno.ENAMETOOLONG),
    ):
        path = f"{file.parent}/{name}"
        answers: list[object] = []
        with pytest.raises(OSError) as caught:
            procaio.aio_replace(path, NEW, 0o600, answers.append, pool=pool).wait()
        assert (caught.value.errno, caught.value.filename) == (number, path)
        assert answers == [-1]
    for path in (".", "..", "inner/.."):
        with pytest.raises(OSError):
            procaio.aio_replace(f"{file.parent}/{path}", NEW, pool=pool).wait()
    with pytest.raises(FileNotFoundError):
        procaio.aio_replace("", NEW, pool=pool).wait()
    with pytest.raises(OSError):
        procaio.aio_replace("/proc/self/comm", NEW, pool=pool).wait()
    (file.parent / "inner").rmdir()
    assert file.read_bytes() == OLD
    assert left_beside(file) == []
    assert opened(file.parent) == set()


def test_replace_wrong_arguments_raise_in_the_call(pool: procaio.Pool, file: Path) -> None:
    """Nothing is queued, no memory is held (A5)."""
    data = bytearray(b"data")
    long = str(file.parent) + "/." * 500
    for wrong in ("text", None, 3, [1], memoryview(b"data")[::2]):
        for path in (file, long):
            with pytest.raises(TypeError):
                procaio.aio_replace(path, wrong, pool=pool)  # type: ignore[arg-type]
    for call in (
        lambda: procaio.aio_replace(3, data, pool=pool),  # type: ignore[arg-type]
        lambda: procaio.aio_replace(file, data, "mode", pool=pool),  # type: ignore[call-overload]
        lambda: procaio.aio_replace(file, data, dir_fd="x", pool=pool),  # type: ignore[arg-type]
    ):
        with pytest.raises(TypeError):
            call()
    with pytest.raises(ValueError):
        procaio.aio_replace("a\0b", data, pool=pool)
    released = procaio.Buffer(8, pool=pool)
    released.release()
    with pytest.raises(ValueError):
        procaio.aio_replace(long, released, pool=pool)
    data.clear()
    assert (pool._snapshot()["shared_used"], pool.statistics().submitted) == (0, 0)


def test_replace_by_many_at_once_leaves_one_of_theirs(workers: procaio.Pool, file: Path) -> None:
    """Whoever is last wins, whole."""
    contents = [bytes([n]) * (100_000 + n) for n in range(32)]
    requests = [procaio.aio_replace(file, data, pool=workers) for data in contents]
    assert [request.wait() for request in requests] == [0] * 32
    assert file.read_bytes() in contents
    assert left_beside(file) == []


def test_replace_beyond_the_size_limit_changes_nothing(file: Path) -> None:
    """EFBIG, and no dead worker."""
    program = """
        import resource, sys, procaio
        with procaio.Pool() as pool:
            pool.max_parallel(1)
            procaio.aio_nop(pool=pool).wait()
            for worker in pool.statistics().workers:
                resource.prlimit(worker.pid, resource.RLIMIT_FSIZE, (100_000, 100_000))
            request = procaio.aio_replace(sys.argv[1], b"x" * 200_000, pool=pool)
            try:
                request.wait()
            except OSError as error:
                print(error.errno, pool.statistics().worker_deaths)
    """
    answer = run_python(program, file)
    assert answer == f"{errno.EFBIG} 0\n"
    assert file.read_bytes() == OLD
    assert left_beside(file) == []


# -- whatever dies ---------------------------------------------------------------------------------


@pytest.mark.parametrize("point", AT_POINTS)
@pytest.mark.parametrize("size", [len(NEW), 0, 3 << 20])
def test_replace_worker_dies_at_every_point(
    workers: procaio.Pool, file: Path, point: str, size: int
) -> None:
    """Not begun: it is done by another worker. Begun: nobody knows. Ended: it has ended."""
    new = (NEW * (size // len(NEW) + 1))[:size]
    path = str(file.parent) + "/." * 200 + "/file"
    procaio.aio_nop(pool=workers).wait()
    testing.arm(workers, point)
    request = procaio.aio_replace(path, new, pool=workers)
    if point == "called":
        with pytest.raises(procaio.WorkerDied) as caught:
            request.wait()
        assert caught.value.filename is path
    else:
        assert request.wait() == 0
    assert file.read_bytes() == new
    assert left_beside(file) == []
    assert workers._snapshot()["shared_used"] == 0


def busy(pool: procaio.Pool) -> int:
    """The process that replaces a file right now, or 0."""
    found = [w.pid for w in pool.statistics().workers if w.state == "execute"]
    return found[0] if found else 0


def opened(directory: Path) -> set[int]:
    """Descriptors of what is in a directory, or was."""
    return {fd for fd, what in descriptors().items() if what.startswith(str(directory))}


def test_replace_worker_is_killed_at_random_times(workers: procaio.Pool, file: Path) -> None:
    """The old content or the new one; what is left beside them is the whole new one."""
    rng = random.Random(7)
    procaio.aio_nop(pool=workers).wait()
    content, died, longest = OLD, 0, 0.02
    for round_ in range(40):
        new = bytes([round_]) * rng.choice([100, 70_000, 4 << 20])
        began = time.monotonic()
        request = procaio.aio_replace(file, new, pool=workers)
        end = began + rng.random() * longest
        while time.monotonic() < end:
            pass
        pid = busy(workers)
        if pid:
            kill(pid, signal.SIGKILL)
        try:
            assert request.wait(timeout=30) == 0
            assert file.read_bytes() == new
            longest = time.monotonic() - began
        except procaio.WorkerDied:
            died += 1
            assert file.read_bytes() in {content, new}
        content = file.read_bytes()
        assert left_beside(file) in ([], [new])
        for name in set(os.listdir(file.parent)) - {file.name}:
            (file.parent / name).unlink()
    workers.flush()

    def all_closed() -> bool:
        procaio.aio_nop(pool=workers).wait()
        return opened(file.parent) == set()

    assert died > 0
    eventually(all_closed, "what dead workers had open is closed")
    assert workers._snapshot()["shared_used"] == 0


# argv: the file, the system call at which its worker is killed, whether O_TMPFILE is known.
FILTERED = (
    FILTER
    + """
import procaio

OPENAT = 257
CALLS = {"linkat": 265, "renameat": 264, "fsync": 74}

def next_descriptor():
    fd = os.dup(0)
    os.close(fd)
    return fd

def contents(path):
    directory, name = os.path.split(path)
    found = {}
    for entry in os.listdir(directory):
        with open(os.path.join(directory, entry), "rb") as file:
            found["file" if entry == name else entry[:9]] = file.read()
    return found

path, step, has_tmpfile = sys.argv[1], sys.argv[2], sys.argv[3] == "True"
if step == "fsync of the directory":
    # It is opened first, and the second pool gets the numbers that the first one had.
    with procaio.Pool() as pool:
        pool.max_parallel(1)
        procaio.aio_replace(path, b"old content", pool=pool).wait()
        directory = next_descriptor()
    filter_call(KILL, CALLS["fsync"], 0, directory)
with procaio.Pool() as pool:
    pool.max_parallel(1)
    if not has_tmpfile:
        filter_call(REFUSE | errno.EOPNOTSUPP, OPENAT, 2, 0o20000000, ANY_BIT)
    if step in CALLS:
        filter_call(KILL, CALLS[step])
    try:
        result = procaio.aio_replace(path, b"new content", pool=pool).wait()
    except OSError as error:
        result = type(error).__name__
    for _ in range(1000):
        procaio.aio_nop(pool=pool).wait()
        names = [os.readlink(f"/proc/self/fd/{n}") if os.path.islink(f"/proc/self/fd/{n}")
                 else "" for n in os.listdir("/proc/self/fd")]
        if not any(name.startswith(os.path.dirname(path)) for name in names):
            break
    else:
        print("left open")
    print(result, contents(path))
"""
)


def filtered(file: Path, step: str, *, has_tmpfile: bool) -> str:
    """What became of a replace whose worker is killed at `step`."""
    return run_python(FILTERED, file, step, has_tmpfile)


def has_tmpfile(directory: Path) -> bool:
    try:
        os.close(os.open(directory, os.O_TMPFILE | os.O_WRONLY))
    except OSError:
        return False
    return True


@X86
@pytest.mark.parametrize(
    ("step", "left"),
    [("fsync", {}), ("linkat", {}), ("renameat", {".procaio-": b"new content"})],
)
def test_replace_worker_is_killed_at_each_system_call(
    file: Path, step: str, left: dict[str, bytes]
) -> None:
    """Nothing is left but between the last two: then it is the whole new content."""
    if not has_tmpfile(file.parent):
        pytest.skip("no O_TMPFILE here")
    answer = filtered(file, step, has_tmpfile=True)
    result, _, found = answer.partition(" ")
    assert result == "WorkerDied"
    assert eval(found) == {"file": OLD, **left}


@X86
def test_replace_worker_is_killed_when_only_the_directory_is_not_synced(file: Path) -> None:
    """The new content has its name, and nothing is left beside it."""
    answer = filtered(file, "fsync of the directory", has_tmpfile=True)
    result, _, found = answer.partition(" ")
    assert result == "WorkerDied"
    assert eval(found) == {"file": b"new content"}


@X86
@pytest.mark.parametrize("step", ["fsync", "renameat"])
def test_replace_where_files_need_names_leaves_the_temporary_file_of_a_dead_worker(
    file: Path, step: str
) -> None:
    """Without O_TMPFILE it has a name from the beginning; the old content stays all the same."""
    result, _, found = filtered(file, step, has_tmpfile=False).partition(" ")
    assert result == "WorkerDied"
    assert eval(found) == {"file": OLD, ".procaio-": b"new content"}


@X86
@pytest.mark.parametrize("step", ["nowhere", "linkat"])
def test_replace_where_files_need_names(file: Path, step: str) -> None:
    """The outcome is the same, with nothing left behind; no link is needed."""
    result, _, found = filtered(file, step, has_tmpfile=False).partition(" ")
    assert result == "0"
    assert eval(found) == {"file": b"new content"}
