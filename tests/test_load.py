"""Load: whole files, to their end and not to their size (rules I1, C1, C2, C7)."""

from __future__ import annotations

import contextlib
import os
import pathlib
import threading
from typing import TYPE_CHECKING

import pytest

import procaio
from conftest import eventually, kill, open_files
from procaio import testing

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Gate

STEP = 64 << 10  # what the first round trip brings at most
LARGEST_BLOCK = 8 << 20  # what is larger lies in shared memory of its own
POINTS = [point for point in testing.FAULT_POINTS if point != "sleeping"]
NOT_BEGUN = ("claimed", "taken")


def content(size: int) -> bytes:
    """Bytes in which no two blocks are alike."""
    return b"".join(n.to_bytes(16, "big") for n in range(size // 16 + 1))[:size]


def filled(path: Path, size: int) -> bytes:
    data = content(size)
    path.write_bytes(data)
    return data


class Writer:
    """Somebody who writes to a FIFO once it is opened, and then closes it."""

    def __init__(self, path: Path, data: bytes) -> None:
        """Begin; it goes on in a thread."""
        os.mkfifo(path)
        self._path, self._data = path, data
        self._thread = threading.Thread(target=self._write, daemon=True)
        self._thread.start()

    def _write(self) -> None:
        with contextlib.suppress(BrokenPipeError):  # the reader is dead
            self._path.write_bytes(self._data)

    def join(self) -> None:
        """Wait until it has ended."""
        self._thread.join(10)
        assert not self._thread.is_alive()


# -- to the end ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "size",
    [0, 1, STEP - 1, STEP, STEP + 1, 2 * STEP, 1 << 20, (3 << 20) + 5,
     LARGEST_BLOCK - 1, LARGEST_BLOCK, LARGEST_BLOCK + 1, 20 << 20],
)  # fmt: skip
def test_load_of_any_size_is_whole(pool: procaio.Pool, tmp_path: Path, size: int) -> None:
    """One step or several: every byte, as bytes and into a bytearray; nothing stays open (I1)."""
    data = filled(tmp_path / "file", size)
    before = open_files()
    assert procaio.aio_load(tmp_path / "file", pool=pool).wait() == data
    target = bytearray(b"what was there before")
    assert procaio.aio_load(tmp_path / "file", target, pool=pool).wait() == size
    assert target == data
    assert open_files() == before


def test_load_gives_its_shared_memory_back(pool: procaio.Pool, tmp_path: Path) -> None:
    filled(tmp_path / "file", 20 << 20)
    procaio.aio_load(tmp_path / "file", pool=pool).wait()
    before = pool.statistics().shared_bytes
    for _ in range(3):
        procaio.aio_load(tmp_path / "file", pool=pool).wait()
    assert pool.statistics().shared_bytes == before
    assert pool._snapshot()["shared_used"] == 0


@pytest.mark.better
@pytest.mark.parametrize("name", ["version", "cpuinfo", "filesystems", "kallsyms"])
def test_load_of_files_of_proc(pool: procaio.Pool, name: str) -> None:
    """Their size is 0, and their content is not: load reads to the end of the file (I1)."""
    path = f"/proc/{name}"
    assert os.stat(path).st_size == 0
    loaded = procaio.aio_load(path, pool=pool).wait()
    if name == "cpuinfo":  # frequencies change all the time
        assert loaded.startswith(pathlib.Path(path).read_bytes()[:20])
    else:
        assert loaded == pathlib.Path(path).read_bytes()
    assert (len(loaded) > STEP) == (name == "kallsyms")


def test_load_of_a_file_of_sys_is_shorter_than_its_size(pool: procaio.Pool) -> None:
    """Its size is a page, its content a line."""
    path = "/sys/kernel/mm/transparent_hugepage/enabled"
    expected = pathlib.Path(path).read_bytes()
    assert os.stat(path).st_size > len(expected)
    assert procaio.aio_load(path, pool=pool).wait() == expected


def test_load_of_a_log_of_messages_begins_with_the_first(pool: procaio.Pool) -> None:
    """Behind the last one it would wait for the next. Ten bytes are too few for any (EINVAL)."""
    try:
        fd = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        pytest.skip("the messages of the kernel cannot be read")
    try:
        os.read(fd, 10)
    except BlockingIOError:
        pytest.skip("the kernel has no message")
    except OSError as error:
        expected = error
    finally:
        os.close(fd)
    with pytest.raises(OSError, match=os.strerror(expected.errno or 0)):
        procaio.aio_slurp("/dev/kmsg", 0, 10, pool=pool).wait(20)


@pytest.mark.better
def test_load_of_a_file_that_grows_reads_on_to_its_end(
    workers: procaio.Pool, tmp_path: Path
) -> None:
    """What is added between two steps belongs to it (I1)."""
    data = filled(tmp_path / "file", STEP)
    request = procaio.aio_load(tmp_path / "file", pool=workers)
    eventually(lambda: request.state == "pending", "the first step, which does not see the end")
    with open(tmp_path / "file", "ab") as file:
        file.write(content(5 * STEP))
    assert request.wait() == data + content(5 * STEP)


def test_load_of_a_file_that_shrinks_ends_where_it_ends(
    workers: procaio.Pool, tmp_path: Path
) -> None:
    data = filled(tmp_path / "file", 4 * STEP)
    request = procaio.aio_load(tmp_path / "file", pool=workers)
    eventually(lambda: request.state == "pending", "the first step")
    os.truncate(tmp_path / "file", STEP + 3)
    assert request.wait() == data[: STEP + 3]


@pytest.mark.parametrize("size", [0, 5, STEP, 3 * STEP + 1])
def test_load_of_a_fifo_reads_to_its_end(workers: procaio.Pool, tmp_path: Path, size: int) -> None:
    """It has no size and comes in small parts; its end is where the writer closes it."""
    data = content(size)
    writer = Writer(tmp_path / "fifo", data)
    assert procaio.aio_load(tmp_path / "fifo", pool=workers).wait() == data
    writer.join()


# -- paths -----------------------------------------------------------------------------------------


def test_load_takes_every_kind_of_path(pool: procaio.Pool, data_file: Path) -> None:
    """Str, bytes, PathLike, relative to a directory, and much too long ones."""
    data = data_file.read_bytes()
    long = f"{data_file.parent}{'/' * 3000}{data_file.name}"
    for path in (data_file, str(data_file), os.fsencode(data_file), long, long.encode()):
        assert procaio.aio_load(path, pool=pool).wait() == data
        target = bytearray()
        assert procaio.aio_load(path, target, pool=pool).wait() == len(data)
        assert target == data
    with procaio.aio_open(data_file.parent, os.O_DIRECTORY, pool=pool).wait() as top:
        for dir_fd in (top, top.fileno()):
            load = procaio.aio_load(data_file.name, dir_fd=dir_fd, pool=pool)
            assert load.wait() == data


def test_load_follows_symlinks(pool: procaio.Pool, data_file: Path) -> None:
    (data_file.parent / "link").symlink_to("data")
    load = procaio.aio_load(data_file.parent / "link", pool=pool)
    assert load.wait() == data_file.read_bytes()


def test_load_of_what_cannot_be_loaded_fails_like_open_and_read(
    pool: procaio.Pool, tmp_path: Path
) -> None:
    """Directories, missing files, loops: the OSError of reading it, with the path itself."""
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "file").touch()
    before = open_files()
    for name, kind in (
        (".", IsADirectoryError), ("no", FileNotFoundError), ("file/x", NotADirectoryError),
        ("loop", OSError), ("x" * 300, OSError), ("", IsADirectoryError),
    ):  # fmt: skip
        path = tmp_path / name
        with pytest.raises(OSError) as expected:
            path.read_bytes()
        data = bytearray(b"kept")
        answers: list[object] = []
        with pytest.raises(kind) as raised:
            procaio.aio_load(path, pool=pool).wait()
        assert raised.value.errno == expected.value.errno
        assert raised.value.filename is path
        procaio.aio_load(path, answers.append, pool=pool)
        procaio.aio_load(path, data, answers.append, pool=pool)
        pool.flush()
        assert sorted(answers, key=str) == [-1, None]
        assert data == b"kept"
    with pytest.raises(FileNotFoundError):
        procaio.aio_load("", pool=pool).wait()
    assert open_files() == before


# -- into a bytearray ------------------------------------------------------------------------------


@pytest.mark.parametrize("before", [0, 4, 65_536, 1_000_000])
def test_load_replaces_what_the_bytearray_held(
    pool: procaio.Pool, data_file: Path, before: int
) -> None:
    """Shorter or longer than it was: it holds the file and nothing else (C1)."""
    data = bytearray(b"o" * before)
    answers: list[int] = []
    assert procaio.aio_load(data_file, data, answers.append, pool=pool).wait() == 65_536
    assert answers == [65_536]
    assert data == data_file.read_bytes()


@pytest.mark.better
def test_load_into_a_bytearray_that_fails_late_leaves_it_as_it_was(
    workers: procaio.Pool, tmp_path: Path
) -> None:
    """Also after some steps have brought their part (C2)."""
    filled(tmp_path / "file", 4 * STEP)
    data = bytearray(b"before")
    request = procaio.aio_load(tmp_path / "file", data, pool=workers)
    eventually(lambda: request.state == "pending", "the first step")
    testing.arm(workers, "taken", always=True)
    with pytest.raises(procaio.WorkerDied):
        request.wait(timeout=10)
    assert data == b"before"


def test_load_holds_the_bytearray_while_it_is_in_flight(
    workers: procaio.Pool, gate: Gate, data_file: Path
) -> None:
    """It cannot be resized until the request is done, and then it can (C7)."""
    workers.max_parallel(1)
    (held,) = gate.hold(workers)
    data = bytearray(b"12345678")
    request = procaio.aio_load(data_file, data, pool=workers)
    with pytest.raises(BufferError):
        data.append(1)
    gate.open()
    assert request.wait() == 65_536
    data.append(1)
    assert len(data) == 65_537
    assert held.wait() == b"x"


def test_load_into_a_bytearray_that_others_hold_is_an_error_not_a_crash(
    pool: procaio.Pool, data_file: Path
) -> None:
    """Where it cannot be resized the request fails, and it stays as it was."""
    data = bytearray(16)
    with memoryview(data):
        with pytest.raises(OSError, match="busy"):
            procaio.aio_load(data_file, data, pool=pool).wait()
        assert data == bytes(16)
    assert procaio.aio_load(data_file, data, pool=pool).wait() == 65_536


def test_load_into_anything_but_a_bytearray_raises_in_the_call(
    pool: procaio.Pool, data_file: Path
) -> None:
    """Nobody knows how large it has to be (A5)."""
    for wrong in (b"bytes", "text", 3, memoryview(bytearray(9)), procaio.Buffer(9)):
        with pytest.raises(TypeError, match="bytearray"):
            procaio.aio_load(data_file, wrong, pool=pool)
    assert pool.statistics().submitted == 0


# -- cancelling ------------------------------------------------------------------------------------


def test_load_that_is_cancelled_leaves_nothing_open(workers: procaio.Pool, tmp_path: Path) -> None:
    """Wherever it is by then (L1)."""
    filled(tmp_path / "file", 5 * STEP)
    workers.flush()
    procaio.aio_nop(pool=workers).wait()
    before = open_files()
    data = bytearray(b"kept")
    for n in range(40):
        request = procaio.aio_load(tmp_path / "file", *([data] if n % 2 else []), pool=workers)
        for _ in range(n % 4):
            procaio.aio_nop(pool=workers).wait()
        request.cancel()
        workers.flush()
        assert request.state in {"cancelled", "done"}
    assert open_files() == before
    assert workers._snapshot()["shared_used"] == 0
    data.clear()  # nobody holds it


def test_load_that_is_cancelled_between_two_steps_goes_no_further(
    workers: procaio.Pool, tmp_path: Path
) -> None:
    """The first step has left the file open; it is closed, and the data stay as they were."""
    filled(tmp_path / "file", 5 * STEP)
    procaio.aio_nop(pool=workers).wait()
    before = open_files()
    data = bytearray(b"kept")
    answers: list[int] = []
    request = procaio.aio_load(tmp_path / "file", data, answers.append, pool=workers)
    eventually(lambda: request.state == "pending", "the first step")
    assert open_files() != before
    request.cancel()
    with pytest.raises(procaio.RequestCancelled):
        request.wait()
    assert (data, answers) == (b"kept", [])
    eventually(lambda: open_files() == before, "a worker has closed the file")


# -- death -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("after", [0, 1])
@pytest.mark.parametrize("point", POINTS)
def test_load_of_a_file_is_run_again_when_its_worker_dies(
    workers: procaio.Pool, tmp_path: Path, point: str, after: int
) -> None:
    """In its first step or in its second one: the whole file, and no descriptor is left."""
    data = filled(tmp_path / "file", 3 * STEP)
    procaio.aio_nop(pool=workers).wait()
    before = open_files()
    testing.arm(workers, point, after=after)
    request = procaio.aio_load(tmp_path / "file", pool=workers)
    assert request.wait(timeout=10) == data
    eventually(lambda: workers._sleep(0) or workers.statistics().worker_deaths == 1, "the burial")
    eventually(
        lambda: procaio.aio_nop(pool=workers).wait() is None and open_files() == before,
        "the orphan is closed",
    )
    assert workers.statistics().died == 0


@pytest.mark.parametrize("after", [0, 1])
@pytest.mark.parametrize("point", POINTS)
def test_load_of_a_fifo_is_never_begun_again(
    workers: procaio.Pool, tmp_path: Path, point: str, after: int
) -> None:
    """What was read is gone from the FIFO: all of it, or WorkerDied; never the rest alone."""
    data = content(3 * STEP)
    procaio.aio_nop(pool=workers).wait()
    before = open_files()
    writer = Writer(tmp_path / "fifo", data)
    testing.arm(workers, point, after=after)
    request = procaio.aio_load(tmp_path / "fifo", pool=workers)
    if point == "called" or (point in NOT_BEGUN and after == 1):
        with pytest.raises(procaio.WorkerDied) as raised:
            request.wait(timeout=10)
        assert raised.value.filename == tmp_path / "fifo"
    else:
        assert request.wait(timeout=10) == data
    eventually(lambda: workers._sleep(0) or workers.statistics().worker_deaths == 1, "the burial")
    eventually(
        lambda: not (procaio.aio_nop(pool=workers).wait() or open_files().keys() - before.keys()),
        "the orphan is closed",
    )
    writer.join()


def test_load_that_waits_for_a_writer_is_run_again_when_its_worker_is_killed(
    workers: procaio.Pool, tmp_path: Path
) -> None:
    """Nothing was read yet, so nothing is lost."""
    os.mkfifo(tmp_path / "fifo")
    request = procaio.aio_load(tmp_path / "fifo", pool=workers)
    eventually(lambda: request.state == "execute", "a worker waits")
    (busy,) = [w for w in workers.statistics().workers if w.operation == "load"]
    kill(busy.pid)
    eventually(lambda: workers._sleep(0) or workers.statistics().rerun == 1, "the burial")
    (tmp_path / "fifo").write_bytes(b"at last")
    assert request.wait(timeout=10) == b"at last"
